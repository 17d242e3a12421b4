/** The one log line of a call. Holds no prompt, no answer and no key. */
import { type GatewayError, sanitizeWords } from '../chat/errors.ts';
import { type Call, shortName } from './call.ts';
import { nameList } from './name-list.ts';
import type { EndedCall } from './observer.ts';
import { utcTime } from './utc-time.ts';

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

const namesOf = ({ endpoint, caller, model, provider, upstreamModel, stream }: Call): string =>
  text('endpoint', endpoint) +
  text('key', caller.keyPrefix) +
  text('model', shortName(model)) +
  text('provider', provider) +
  text('upstreamModel', upstreamModel === undefined ? undefined : shortName(upstreamModel)) +
  `,"stream":${stream}`;

const haveSameNames = (one: Call, other: Call): boolean =>
  one.model === other.model &&
  one.caller.keyPrefix === other.caller.keyPrefix &&
  one.upstreamModel === other.upstreamModel &&
  one.endpoint === other.endpoint &&
  one.provider === other.provider &&
  one.stream === other.stream;

/** The lines, at level info, as pino would write them, at a tenth of the cost. Calls in a row differ in little but numbers. */
export function callLines(ended: readonly EndedCall[]): string {
  const time = `${utcTime(Date.now())}Z`;
  let lines = '';
  let before: Call | undefined;
  let names = '';
  for (const { call, status } of ended) {
    if (before === undefined || !haveSameNames(call, before)) names = namesOf(call);
    before = call;
    lines += lineOf(call, status, time, names);
  }
  return lines;
}

function lineOf(call: Call, status: number, time: string, names: string): string {
  const { error, usage } = call;
  return (
    `{"level":"info","time":"${time}"` +
    text('requestId', call.requestId) +
    names +
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
    (call.ignored.length === 0 ? '' : text('ignored', nameList(call.ignored))) +
    ',"msg":"call"}\n'
  );
}
