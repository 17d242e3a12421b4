/** Reads an answer that is there as a whole: JSON, or the events of a stream that nobody asked for. Knows no tries and no limits. */
import type { ProviderAdapter, Target } from '../chat/adapter.ts';
import { silentUpstreamError } from '../chat/errors.ts';
import { type ChatResult, Collector } from '../chat/events.ts';
import type { GenerationRequest } from '../chat/request.ts';
import type { ResponseHead } from '../upstream/client.ts';
import { FrameReader } from '../upstream/sse.ts';
import { shapeOf } from '../upstream/text.ts';

export const isSuccess = (status: number): boolean => status >= 200 && status < 300;

/** Whether the upstream asks not to be asked again. */
export const isFinal = ({ status, headers }: ResponseHead): boolean =>
  status === 502 && headers['x-should-retry'] === 'false';

interface Asked {
  readonly adapter: ProviderAdapter;
  readonly target: Target;
}

/** @throws GatewayError for all but an answer; FrameTooLong */
export function decodeWhole(
  asked: Asked,
  request: GenerationRequest,
  head: ResponseHead,
  body: string,
): ChatResult {
  const { adapter, target } = asked;
  if (!isSuccess(head.status)) throw adapter.decodeError({ ...head, body }, target);
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (cause) {
    const bytes = Buffer.from(body);
    const result = shapeOf(bytes, 'document') === 'events' ? collectStream(asked, request, bytes) : undefined;
    if (result !== undefined) return result;
    throw silentUpstreamError(target.displayName, 'format', { cause, upstreamStatus: head.status });
  }
  return adapter.decodeResult(json, request, target);
}

function collectStream(
  { adapter, target }: Asked,
  request: GenerationRequest,
  bytes: Buffer,
): ChatResult | undefined {
  const decoder = adapter.decoder(request, target);
  const frames = new FrameReader();
  const collector = new Collector();
  for (const frame of [...frames.push(bytes), ...frames.end()]) collector.push(decoder.push(frame));
  collector.push(decoder.end());
  return collector.result();
}
