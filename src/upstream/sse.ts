/** Server-sent events: an upstream's bytes to frames by the WHATWG rules. Knows nothing of what the frames mean. */
import { StringDecoder } from 'node:string_decoder';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import type { Frame } from '../chat/adapter.ts';

/** Longest event that is held in memory: 16 MiB. An image in a tool result may take megabytes, none takes this. */
const longestEvent = 16 * 1024 * 1024;

/** Below this many bytes Buffer's own conversion is faster than a TextDecoder; above, it is slower. */
const shortRead = 1024;

/** For reads that hold whole characters only: one for all streams, since each of its kind that keeps a state takes 2 KB. */
const wholeText = new TextDecoder('utf-8', { ignoreBOM: true });

const byteOrderMark = 0xfeff;

/** An event grew beyond what is held in memory. */
export class FrameTooLong extends Error {}

/**
 * Reads one stream. Holds the bytes of an unfinished character and the text of an unfinished event between reads.
 * Comments, ids and retry hints give no frame.
 */
export class FrameReader {
  /** Holds the bytes of a character that the last read split; most streams never need one. */
  #split: StringDecoder | undefined;
  #begun = false;
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

  #decode(chunk: Buffer): string {
    // Most reads end in a line break.
    const endsWhole = (chunk[chunk.length - 1] ?? 0) < 0x80;
    if (endsWhole && this.#split === undefined) {
      return chunk.length < shortRead ? chunk.toString('utf8') : wholeText.decode(chunk);
    }
    this.#split ??= new StringDecoder('utf8');
    const text = this.#split.write(chunk);
    if (endsWhole) this.#split = undefined;
    return text;
  }

  /** At a clean end: a last event without its blank line, which the standard drops and some upstreams send. */
  end(): readonly Frame[] {
    return this.#feed(`${this.#split?.end() ?? ''}\n\n`);
  }

  #feed(text: string): readonly Frame[] {
    this.#frames = [];
    if (text !== '') {
      // The parser knows a byte order mark only as raw bytes.
      const marked = !this.#begun && text.charCodeAt(0) === byteOrderMark;
      this.#begun = true;
      this.#parser.feed(marked ? text.slice(1) : text);
    }
    if (this.#failure !== undefined) throw this.#failure;
    return this.#frames;
  }
}
