/** Bodies that come compressed though identity was asked for, decoded as they come. Knows no connection and no protocol. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';

/** Takes decoded bytes, which are its own only until it returns; a returned promise holds the decoder back. */
type ByteSink = (chunk: Buffer) => Promise<void> | undefined;

const { BROTLI_OPERATION_FLUSH, Z_SYNC_FLUSH } = zlib.constants;
/** A body that was cut gives what it has. */
const asFarAsItGoes = { finishFlush: Z_SYNC_FLUSH };

// Node has zstd from 22.15 on.
const createZstd = (zlib as { createZstdDecompress?: () => Transform }).createZstdDecompress;

/** Deflate has two forms, told apart by the first byte: with a zlib head, as the standard has it, and without. */
const hasZlibHead = (first: number): boolean => (first & 0x0f) === 8;

const decoders = new Map<string, (first: number) => Transform>([
  ['gzip', () => zlib.createGunzip(asFarAsItGoes)],
  ['x-gzip', () => zlib.createGunzip(asFarAsItGoes)],
  [
    'deflate',
    (first: number) =>
      hasZlibHead(first) ? zlib.createInflate(asFarAsItGoes) : zlib.createInflateRaw(asFarAsItGoes),
  ],
  ['br', () => zlib.createBrotliDecompress({ finishFlush: BROTLI_OPERATION_FLUSH })],
  ...(createZstd === undefined ? [] : ([['zstd', createZstd]] as const)),
]);

/** What is no coding: the name of none, and that of a character set, which some servers put there. */
const codesNothing = new Set(['', 'identity', 'none', 'utf-8', 'utf8']);

/** The content coding that a header declares, in lower case; undefined for none. */
export function codingOf(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  const coding = String(header).trim().toLowerCase();
  return codesNothing.has(coding) ? undefined : coding;
}

/** Whether a body begins as gzip does, and no text: some servers compress without saying so. */
export const looksLikeGzip = (chunk: Buffer): boolean => chunk[0] === 0x1f && chunk[1] === 0x8b;

/** Undoes one content coding. */
export class BodyDecoder {
  readonly #transform: Transform;
  /** The writers that are held back until what they wrote is decoded. */
  #held: (() => void)[] = [];

  private constructor(transform: Transform, sink: ByteSink, onFailure: (error: Error) => void) {
    this.#transform = transform;
    const letOn = (): void => {
      const held = this.#held;
      this.#held = [];
      for (const resolve of held) resolve();
    };
    transform.on('drain', letOn).on('close', letOn).on('error', onFailure);
    transform.on('data', (chunk: Buffer) => {
      const held = sink(chunk);
      if (held === undefined) return;
      transform.pause();
      const resume = (): void => void transform.resume();
      held.then(resume, resume);
    });
  }

  /**
   * Undefined where the coding is none that is known.
   * @param first the body's first bytes, which are not decoded yet
   * @param onFailure told what zlib says of bytes that it cannot decode
   */
  static for(
    coding: string,
    first: Buffer,
    sink: ByteSink,
    onFailure: (error: Error) => void,
  ): BodyDecoder | undefined {
    const create = decoders.get(coding);
    return create && new BodyDecoder(create(first[0] ?? 0), sink, onFailure);
  }

  /** Takes the next bytes. The promise, where there is one, resolves when more may come. */
  push(chunk: Buffer): Promise<void> | undefined {
    const transform = this.#transform;
    // zlib reads in a thread of its own, after the bytes went back to their owner.
    if (transform.destroyed || transform.write(Buffer.from(chunk))) return undefined;
    return new Promise((resolve) => void this.#held.push(resolve));
  }

  /** No bytes follow. @param onEnd called when the last was handed on, unless it failed or was destroyed */
  end(onEnd: () => void): void {
    this.#transform.on('end', onEnd).end();
  }

  destroy(): void {
    this.#transform.destroy();
  }
}
