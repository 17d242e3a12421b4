/** The reader of event streams, which reads plain events by itself, against the parser that knows the whole standard. */
import { createParser } from 'eventsource-parser';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Frame } from '../../src/chat/adapter.ts';
import { FrameReader } from '../../src/upstream/sse.ts';

const piece = fc.constantFrom(
  'data: {"a":"é"}\n\n',
  'data: b\n\n',
  'data: ',
  'data:',
  'data: \n\n',
  'data',
  'd',
  'event: x\n',
  'id: 1\n',
  ': comment\n\n',
  'retry: 5\n',
  'ï»¿',
  'word',
  '👋',
  ' ',
  '\n',
  '\n\n',
  '\r',
  '\r\n',
);

function byStandard(text: string): Frame[] {
  const frames: Frame[] = [];
  const parser = createParser({
    onEvent: ({ event = 'message', data }) => frames.push({ event, data }),
  });
  // Text that begins with these three characters is not meant; see FrameReader.
  parser.feed('');
  parser.feed(`${text}\n\n`);
  return frames;
}

it('gives the same frames, whatever the stream is made of and wherever its reads end', () => {
  fc.assert(
    fc.property(fc.array(fc.array(piece, { minLength: 1, maxLength: 8 }), { maxLength: 8 }), (reads) => {
      const reader = new FrameReader();
      const frames = reads.flatMap((pieces) => [...reader.push(Buffer.from(pieces.join('')))]);
      frames.push(...reader.end());
      expect(frames).toEqual(byStandard(reads.flat().join('')));
    }),
    { numRuns: 2000 },
  );
});
