/** Server-sent events: an upstream's bytes to frames by the WHATWG rules. Knows nothing of what the frames mean. */
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import type { Frame } from '../chat/adapter.ts';

/** Longest event that is held in memory: 16 MiB. An image in a tool result may take megabytes, none takes this. */
const longestEvent = 16 * 1024 * 1024;

/** Below this many bytes Buffer's own conversion is faster than a TextDecoder; above, it is slower. */
const shortRead = 1024;

/** An event grew beyond what is held in memory. */
export class FrameTooLong extends Error {}

/**
 * Reads one stream. Holds the bytes of an unfinished character and the text of an unfinished event between reads.
 * Comments, ids and retry hints give no frame.
 */
export class FrameReader {
  // One decoder for the whole stream: a character may be split at any byte. It also drops a leading BOM.
  readonly #text = new TextDecoder('utf-8');
  /** Whether the decoder must see the next read: it holds a part of a character, or has not looked for a BOM yet. */
  #decoderNeeded = true;
  #frames: Frame[] = [];
  #failure: FrameTooLong | undefined;
  readonly #parser = createParser({
    maxBufferSize: longestEvent,
    onEvent: (message: EventSourceMessage) => {
      this.#frames.push({ event: message.event ?? 'message', data: message.data });
    },
    onError: (error) => {
      if (error.type === 'max-buffer-size-exceeded') this.#failure = new FrameTooLong(error.message);
    },
  });

  /** The frames that this read completed. @throws FrameTooLong */
  push(chunk: Buffer): readonly Frame[] {
    return this.#feed(this.#decode(chunk));
  }

  /** Most reads are one small event that ends in a line break: for those a plain conversion takes a third of the time. */
  #decode(chunk: Buffer): string {
    const endsWhole = (chunk[chunk.length - 1] ?? 0xff) < 0x80;
    const direct = !this.#decoderNeeded && endsWhole && chunk.length < shortRead;
    this.#decoderNeeded = !endsWhole;
    return direct ? chunk.toString('utf8') : this.#text.decode(chunk, { stream: true });
  }

  /** At a clean end: a last event without its blank line, which the standard drops and some upstreams send. */
  end(): readonly Frame[] {
    return this.#feed(`${this.#text.decode()}\n\n`);
  }

  #feed(text: string): readonly Frame[] {
    this.#frames = [];
    if (text !== '') this.#parser.feed(text);
    if (this.#failure !== undefined) throw this.#failure;
    return this.#frames;
  }
}
