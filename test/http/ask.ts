/** Requests over bare sockets that end with their test. */
import { onTestFinished } from 'vitest';
import { request, type WireAnswer, type WireRequest } from './wire.ts';

/** Sends one request over a connection of its own, which is closed when the test is over. */
export function ask(port: number, path: string, options: WireRequest = {}): WireAnswer {
  const answer = request(port, path, options);
  onTestFinished(() => answer.leave());
  return answer;
}
