/** Bytes to frames by the WHATWG rules: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Frame } from '../../src/chat/adapter.ts';
import { FrameReader, FrameTooLong } from '../../src/upstream/sse.ts';

function read(pieces: readonly (Buffer | string)[]): Frame[] {
  const reader = new FrameReader();
  const frames = pieces.flatMap((piece) => [...reader.push(Buffer.from(piece))]);
  return [...frames, ...reader.end()];
}

const dataOf = (frames: readonly Frame[]): string[] => frames.map((frame) => frame.data);

/** The bytes cut at the given places, in whatever order those come. */
function split(bytes: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...cuts].map((from, index) => bytes.subarray(from, cuts[index] ?? bytes.length));
}

describe('an event', () => {
  it.each([
    ['LF', 'data: a\n\ndata: b\n\n'],
    ['CRLF', 'data: a\r\n\r\ndata: b\r\n\r\n'],
    ['CR', 'data: a\r\rdata: b\r\r'],
    ['a BOM first', '\ufeffdata: a\n\ndata: b\n\n'],
    ['no space after the colon', 'data:a\n\ndata:b\n\n'],
    ['comments in between', ': hi\n\ndata: a\n: there\n\n:\n\ndata: b\n\n'],
    ['ids and retry hints', 'id: 1\nretry: 5\ndata: a\n\nid: 2\ndata: b\n\n'],
    ['unknown fields', 'foo: bar\ndata: a\n\nwhatever\ndata: b\n\n'],
    ['a last event without its blank line', 'data: a\n\ndata: b'],
  ])('with %s', (_name, text) => {
    expect(read([text]).map((frame) => [frame.event, frame.data])).toEqual([
      ['message', 'a'],
      ['message', 'b'],
    ]);
  });

  it('keeps its name', () => {
    expect(read(['event: error\ndata: x\n\n'])).toEqual([{ event: 'error', data: 'x' }]);
  });

  it('joins several data lines by LF', () => {
    expect(dataOf(read(['data: {\ndata: "a":1}\n\n']))).toEqual(['{\n"a":1}']);
  });

  it('strips one space only', () => {
    expect(dataOf(read(['data:  a\n\n']))).toEqual([' a']);
  });

  it('without data gives no frame', () => {
    expect(read(['event: x\n\nid: 1\n\n'])).toEqual([]);
  });

  it('may hold line separators that only JSON knows', () => {
    expect(dataOf(read(['data: a\u2028b\u0085c\n\n']))).toEqual(['a\u2028b\u0085c']);
  });
});

describe('any split of the bytes', () => {
  const text = '\ufeff: c\r\ndata: 你好👋\r\n\r\nevent: x\ndata: é\ndata: 2\n\ndata: {"a":"𝄞"}\r\rdata: end';

  it('gives the same frames, also within a character and within CRLF', () => {
    const bytes = Buffer.from(text);
    const whole = read([bytes]);
    expect(whole).toHaveLength(4);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length)), (places) => {
        expect(read(split(bytes, places))).toEqual(whole);
      }),
    );
  });

  it('gives the same frames byte by byte', () => {
    const bytes = Buffer.from(text);
    expect(read([...bytes].map((byte) => Buffer.from([byte])))).toEqual(read([bytes]));
  });

  it('gives the same frames for large reads and for bytes that are no UTF-8', () => {
    const bytes = Buffer.concat([
      Buffer.from(`data: ${'字'.repeat(2000)}\n\n`),
      Buffer.from([0x64, 0x61, 0x74, 0x61, 0x3a, 0xff, 0xe4, 0xbd, 0x0a, 0x0a]),
      Buffer.from('data: after\n\n'),
    ]);
    const whole = read([bytes]);
    expect(dataOf(whole)[1]).toContain('\ufffd');
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 20 }), (places) => {
        expect(read(split(bytes, places))).toEqual(whole);
      }),
    );
  });
});

describe('a long event', () => {
  it('of a megabyte is read', () => {
    const long = 'x'.repeat(1024 * 1024);
    expect(dataOf(read([`data: ${long}`, '\n\n']))).toEqual([long]);
  });

  it('beyond 16 MiB is an error instead of memory', () => {
    const reader = new FrameReader();
    const piece = Buffer.alloc(1024 * 1024, 'x');
    reader.push(Buffer.from('data: '));
    expect(() => {
      for (let megabyte = 0; megabyte < 17; megabyte += 1) reader.push(piece);
    }).toThrow(FrameTooLong);
  });

  it('takes time in proportion to its length, not to its square', () => {
    const time = (kilobytes: number): number => {
      const reader = new FrameReader();
      const piece = Buffer.alloc(1024, 'x');
      const began = performance.now();
      for (let done = 0; done < kilobytes; done += 1) reader.push(piece);
      return performance.now() - began;
    };
    time(2000);
    // Sixteen times the length: quadratic work would take 256 times as long.
    expect(time(8000)).toBeLessThan(Math.max(2, time(500)) * 100);
  });
});
