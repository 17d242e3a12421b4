/** Reads HTTP answers off a raw socket: far cheaper than an HTTP client, and just enough for honest servers. */

export interface ResponseHandler {
  /** A piece of the body: `bytes[start]` to `bytes[end - 1]`, valid only during the call. */
  body(bytes: Buffer, start: number, end: number): void;
  /** The answer is complete. */
  end(status: number): void;
}

const lineFeed = 10;

/** @returns what takes the socket's bytes, one answer after the other */
export function createResponseReader(handler: ResponseHandler): (bytes: Buffer, length: number) => void {
  let state: 'head' | 'length' | 'size' | 'chunk' | 'gap' | 'trailer' = 'head';
  let status = 0;
  let head = '';
  /** Of the body, or of the current chunk. */
  let remaining = 0;
  let sizeDigits = '';
  let trailerBytes = 0;

  const finish = (): void => {
    state = 'head';
    head = '';
    handler.end(status);
  };

  /** @returns where the body begins, or `length` */
  const readHead = (bytes: Buffer, start: number, length: number): number => {
    const before = head.length;
    head += bytes.toString('latin1', start, length);
    const end = head.indexOf('\r\n\r\n', Math.max(0, before - 3));
    if (end < 0) return length;
    status = Number(head.slice(9, 12));
    const lower = head.slice(0, end).toLowerCase();
    const contentLength = /\ncontent-length: *(\d+)/.exec(lower)?.[1];
    if (contentLength !== undefined) {
      remaining = Number(contentLength);
      state = 'length';
      if (remaining === 0) finish();
    } else {
      state = 'size';
      sizeDigits = '';
    }
    return start + end + 4 - before;
  };

  const readPiece = (bytes: Buffer, start: number, length: number): number => {
    const end = Math.min(length, start + remaining);
    handler.body(bytes, start, end);
    remaining -= end - start;
    if (remaining === 0) {
      if (state === 'length') finish();
      else {
        state = 'gap';
        remaining = 2;
      }
    }
    return end;
  };

  const readSize = (bytes: Buffer, start: number, length: number): number => {
    const end = bytes.indexOf(lineFeed, start);
    if (end < 0 || end >= length) {
      sizeDigits += bytes.toString('latin1', start, length);
      return length;
    }
    remaining = Number.parseInt(sizeDigits + bytes.toString('latin1', start, end), 16);
    sizeDigits = '';
    trailerBytes = 0;
    state = remaining === 0 ? 'trailer' : 'chunk';
    return end + 1;
  };

  /** The line after the last chunk; a longer trailer ends with an empty line as well. */
  const readTrailer = (bytes: Buffer, start: number): number => {
    if (bytes[start] !== lineFeed) {
      trailerBytes += 1;
      return start + 1;
    }
    if (trailerBytes <= 1) finish();
    trailerBytes = 0;
    return start + 1;
  };

  return (bytes, length) => {
    let at = 0;
    while (at < length) {
      switch (state) {
        case 'head':
          at = readHead(bytes, at, length);
          break;
        case 'length':
        case 'chunk':
          at = readPiece(bytes, at, length);
          break;
        case 'size':
          at = readSize(bytes, at, length);
          break;
        case 'gap': {
          const skipped = Math.min(remaining, length - at);
          remaining -= skipped;
          at += skipped;
          if (remaining === 0) state = 'size';
          break;
        }
        case 'trailer':
          at = readTrailer(bytes, at);
          break;
        default:
          return state satisfies never;
      }
    }
  };
}
