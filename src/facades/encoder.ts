/** What a dialect must offer for its event stream; the http layer writes what it returns and looks no further. */
import type { GatewayError } from '../chat/errors.ts';
import type { ChatEvent } from '../chat/events.ts';

/** Who answered, for a stream whose headers left before that was known. */
export interface AnswerRoute {
  readonly provider: string;
  readonly model: string;
  readonly attempts: number;
  /** What it went without, by the caller's names. */
  readonly ignored: readonly string[];
}

export interface StreamEncoder {
  /** The bytes for one batch; empty where the dialect has nothing to say. After `finish` the stream is complete. */
  encode(events: readonly ChatEvent[]): string;
  /**
   * Bytes that change nothing, for a stream that was silent too long; never after `finish`. Something that the dialect's readers
   * know: many of them choke on a comment of server-sent events.
   */
  heartbeat(): string;
  /** The bytes that end a stream which failed after its headers. */
  fail(error: GatewayError): string;
}
