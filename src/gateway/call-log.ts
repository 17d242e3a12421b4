/** The one log line of a call. Holds no prompt, no answer and no key. */
import type { Logger } from 'pino';
import { type GatewayError, sanitizeWords } from '../chat/errors.ts';
import { type Call, shortName } from './call.ts';

/** What lies behind an error: it may quote an upstream, a library or the network. */
function causeOf(error: GatewayError): string | undefined {
  const { cause } = error;
  if (cause === undefined) return undefined;
  const words = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
  return sanitizeWords(words) || undefined;
}

/** Writes the line, at level info. @param status as it was answered, 499 where the client left before anything was */
export function logCall(log: Logger, call: Call, status: number): void {
  const { error, usage } = call;
  log.info(
    {
      requestId: call.requestId,
      endpoint: call.endpoint,
      key: call.caller.keyPrefix,
      model: shortName(call.model),
      provider: call.provider,
      upstreamModel: call.upstreamModel === undefined ? undefined : shortName(call.upstreamModel),
      stream: call.stream,
      ending: call.ending,
      status,
      error: error?.code,
      cause: error === undefined ? undefined : causeOf(error),
      inputTokens: usage?.input_tokens,
      outputTokens: usage?.output_tokens,
      reasoningTokens: call.reasoningTokens,
      queuedMs: Math.round(call.queuedMs),
      firstTokenMs: call.firstTokenMs === undefined ? undefined : Math.round(call.firstTokenMs),
      totalMs: Math.round(call.elapsedMs),
      attempts: call.attempts,
    },
    'call',
  );
}
