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
const lineFeed = 0x0a;

/** How nearly every event of every model server looks: one line of data, then an empty one. */
const fieldStart = 'data: ';
const eventEnd = '\n\n';

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
  /** For all but plain events that come whole, which most streams have none of. */
  #rest: RestParser | undefined;

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
    if (this.#split === undefined && this.#rest?.unfinished !== true) return [];
    return this.#feed(`${this.#split?.end() ?? ''}${eventEnd}`);
  }

  #feed(given: string): readonly Frame[] {
    if (given === '') return [];
    // The parser knows a byte order mark only as raw bytes.
    const marked = !this.#begun && given.charCodeAt(0) === byteOrderMark;
    this.#begun = true;
    const text = marked ? given.slice(1) : given;
    const frames: Frame[] = [];
    const read = this.#rest?.unfinished === true ? 0 : readPlain(text, frames);
    if (read < text.length) {
      this.#rest ??= new RestParser();
      this.#rest.feed(text.slice(read), frames);
    }
    return frames;
  }
}

/** Adds the plain events that the text, which stands at an event's beginning, begins with. Returns where they end. */
function readPlain(text: string, frames: Frame[]): number {
  // A carriage return may end a line, too.
  if (text.includes('\r')) return 0;
  let at = 0;
  while (text.startsWith(fieldStart, at)) {
    const end = text.indexOf('\n', at);
    if (end < 0 || text.charCodeAt(end + 1) !== lineFeed) break;
    frames.push({ event: 'message', data: text.slice(at + fieldStart.length, end) });
    at = end + eventEnd.length;
  }
  return at;
}

/** The standard in full. */
class RestParser {
  /** Whether an event has begun that is not over. */
  unfinished = false;
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

  constructor() {
    // At the beginning of what it is first given, it would take ï»¿ for a byte order mark.
    this.#parser.feed('');
  }

  feed(text: string, frames: Frame[]): void {
    this.#frames = frames;
    this.#parser.feed(text);
    this.#frames = [];
    if (this.#failure !== undefined) throw this.#failure;
    this.unfinished = !text.endsWith(eventEnd);
  }
}
