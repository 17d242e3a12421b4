/** The one log line of a call. Holds no prompt, no answer and no key. */
import { type GatewayError, sanitizeWords } from '../chat/errors.ts';
import { shortName } from './call.ts';
import type { EndedCall } from './observer.ts';

/** What lies behind an error: it may quote an upstream, a library or the network. */
function causeOf(error: GatewayError): string | undefined {
  const { cause } = error;
  if (cause === undefined) return undefined;
  const words = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
  return sanitizeWords(words) || undefined;
}

const text = (name: string, value: string | undefined): string =>
  value === undefined ? '' : `,"${name}":${JSON.stringify(value)}`;

const count = (name: string, value: number | undefined): string =>
  value === undefined || !Number.isFinite(value) ? '' : `,"${name}":${Math.round(value)}`;

/** The line, at level info, as pino would write it, at a quarter of the cost. */
export function callLine({ call, status }: EndedCall): string {
  const { error, usage } = call;
  return (
    `{"level":"info","time":"${new Date().toISOString()}"` +
    text('requestId', call.requestId) +
    text('endpoint', call.endpoint) +
    text('key', call.caller.keyPrefix) +
    text('model', shortName(call.model)) +
    text('provider', call.provider) +
    text('upstreamModel', call.upstreamModel === undefined ? undefined : shortName(call.upstreamModel)) +
    `,"stream":${call.stream}` +
    text('ending', call.ending) +
    count('status', status) +
    text('error', error?.code) +
    text('cause', error === undefined ? undefined : causeOf(error)) +
    count('inputTokens', usage?.input_tokens) +
    count('outputTokens', usage?.output_tokens) +
    count('reasoningTokens', call.reasoningTokens) +
    count('queuedMs', call.queuedMs) +
    count('firstTokenMs', call.firstTokenMs) +
    count('totalMs', call.elapsedMs) +
    count('attempts', call.attempts) +
    ',"msg":"call"}\n'
  );
}
