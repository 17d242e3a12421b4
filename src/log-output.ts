/** Where log lines go: stdout, by the block, never at the price of an answer or of the process's end. Knows no line's words. */
import { constants, fstatSync, openSync, writeSync } from 'node:fs';

/** Lines are written together from this length on: a write per line would cost every request 18 us. Characters. */
const blockLength = 16_000;

/** Longest that a line is held back, and that a reader which takes nothing is left alone. Milliseconds. */
const flushMs = 100;

/** What is held for a reader that takes nothing, or a disk that is full; further lines are dropped. Characters. */
const mostHeld = 4 * 1024 * 1024;

/** How long the end of the process waits for such a reader, and how often it looks. Milliseconds. */
const lastFlushMs = 300;
const lookMs = 5;

function countLines(text: string): number {
  let lines = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines += 1;
  return lines;
}

export class LogOutput {
  readonly #descriptor: number;
  /** What was given since the last write. */
  #text = '';
  /** What a write left over; it goes on in the middle of a line. */
  #rest: Buffer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stuck = false;
  #dropped = 0;

  /** @param descriptor one whose writes fail with EAGAIN and do not block, where what is behind it can block at all */
  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** Lines that were given up, since the start. */
  get dropped(): number {
    return this.#dropped;
  }

  /** @param lines whole ones, each with its line break */
  write(lines: string): void {
    if (this.#text.length + (this.#rest?.length ?? 0) + lines.length > mostHeld) {
      this.#dropped += countLines(lines);
      return;
    }
    this.#text += lines;
    // Only the timer tries a stuck reader again: each try costs a system call.
    if (this.#text.length >= blockLength && !this.#stuck) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), flushMs).unref();
  }

  /** Writes what it can, at once and, within a bound, what a slow reader takes. For the end of the process. */
  end(): void {
    const deadline = performance.now() + lastFlushMs;
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    this.#flush();
    while (this.#stuck && performance.now() < deadline) {
      Atomics.wait(sleeper, 0, 0, lookMs);
      this.#flush();
    }
  }

  /** Whatever fails, a full pipe (EAGAIN), a full disk (ENOSPC), is tried again later: both may end. */
  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stuck = false;
    try {
      for (let block = this.#next(); block !== undefined; block = this.#next()) {
        const written = writeSync(this.#descriptor, block);
        this.#rest = written < block.length ? block.subarray(written) : undefined;
      }
    } catch {
      this.#stuck = true;
      this.#timer = setTimeout(() => this.#flush(), flushMs).unref();
    }
  }

  #next(): Buffer | undefined {
    if (this.#rest === undefined && this.#text !== '') {
      this.#rest = Buffer.from(this.#text);
      this.#text = '';
    }
    return this.#rest;
  }
}

/**
 * Stdout, such that a write to it never waits for who reads it. A pipe and a terminal, which a person may halt, are opened a second
 * time: whether writes wait is told to all that share an opened one, and every child of Node that inherits it has them wait again.
 * A socket cannot be opened so; Node has its writes not wait once `process.stdout` was asked for. Files are always ready.
 */
export function stdoutDescriptor(): number {
  const { fd, isTTY } = process.stdout;
  if (isTTY !== true && !fstatSync(fd).isFIFO()) return fd;
  try {
    return openSync('/dev/stdout', constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return fd;
  }
}
