/** Clients that take nothing of their answer, and the memory that answers may wait in for slow ones. Knows no dialect. */
import type { ServerResponse } from 'node:http';
import type { Call } from '../gateway/call.ts';

/** A client that took nothing for this long is cut off; its socket would be kept for ever. Milliseconds. */
export const longestStallMs = 120_000;

/**
 * Cuts off a client that takes nothing for so long, from now until `response.setTimeout(0)`. By the socket's own clock: it knows whether
 * a part of a long write was taken, and a timer of ours would not. Once all is taken, that clock is the server's again, which sets
 * it to the keep-alive time. To be called once for a response; later `setTimeout` alone starts it anew.
 */
export function cutOffWhenStalled(response: ServerResponse, call: Call, stallMs = longestStallMs): void {
  response.on('timeout', () => {
    call.stop('client_stalled');
    response.destroy();
  });
  response.setTimeout(stallMs);
}

/**
 * What was read ahead of slow readers: kept for them, so that the upstream can end and its slot be free, as long as it is not too much.
 * In bytes.
 */
export class ReadAhead {
  readonly #mostPerStream: number;
  readonly #mostInAll: number;
  #held = 0;

  constructor(mostPerStream = 1024 * 1024, mostInAll = 64 * 1024 * 1024) {
    this.#mostPerStream = mostPerStream;
    this.#mostInAll = mostInAll;
  }

  /** Of all streams. */
  get held(): number {
    return this.#held;
  }

  /** A stream holds another amount now. @returns whether its upstream may go on */
  move(from: number, to: number): boolean {
    this.#held += to - from;
    return to <= this.#mostPerStream && this.#held <= this.#mostInAll;
  }
}

/** Shared by all streams of the process, whose memory it is. */
export const sharedReadAhead = new ReadAhead();
