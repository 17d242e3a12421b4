/** Bytes to frames as the WHATWG rules have it, for tests that feed adapters with recorded streams. */
import { createParser } from 'eventsource-parser';
import type { Frame } from '../../src/chat/adapter.ts';

/** The frames of a stream that arrived in these pieces and ended cleanly. */
export function framesOf(pieces: Iterable<Uint8Array>): Frame[] {
  const frames: Frame[] = [];
  const parser = createParser({
    onEvent: (event) => frames.push({ event: event.event ?? 'message', data: event.data }),
  });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  parser.feed(`${decoder.decode()}\n\n`);
  return frames;
}

/** The same bytes, cut at these offsets (any order, any number). */
export function cutAt(bytes: Uint8Array, offsets: readonly number[]): Uint8Array[] {
  const edges = [0, ...offsets.map((offset) => offset % (bytes.length + 1)), bytes.length].sort(
    (a, b) => a - b,
  );
  return edges.slice(1).map((edge, i) => bytes.subarray(edges[i], edge));
}
