/** The short cut of the stream decoders: it must say what the full parse says, or nothing. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeltaTemplate, type TextDelta } from '../../src/adapters/delta-template.ts';

const chunk = (content: string, rest = ''): string =>
  `{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":${content}},"finish_reason":null}]${rest}}`;

/** The full parse of this test: what the chunk says, if that is a text and nothing else. */
function parse(data: string): TextDelta | undefined {
  const json = JSON.parse(data);
  return { type: 'text', text: json.choices[0].delta.content };
}

function learnt(text = 'hello'): DeltaTemplate {
  const template = new DeltaTemplate();
  template.learn(chunk(JSON.stringify(text)), { type: 'text', text }, parse);
  return template;
}

describe('a template', () => {
  it('says nothing before it has learnt', () => {
    expect(new DeltaTemplate().read(chunk('"a"'))).toBeUndefined();
  });

  it('reads any text as the full parse does', () => {
    const template = learnt();
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const data = chunk(JSON.stringify(text));
        expect(template.read(data)).toEqual(parse(data));
      }),
    );
  });

  it.each(['"\\u4f60\\ud83d\\ude00"', '"a\\/b"', '"\\n\\t\\""', '""'])('reads the literal %s', (literal) => {
    expect(learnt().read(chunk(literal))?.text).toBe(JSON.parse(literal));
  });

  it.each([
    chunk('"a"', ',"usage":{"prompt_tokens":1}'),
    chunk('"a"').replace('null', '"stop"'),
    chunk('"a"').replace('c1', 'c2'),
    chunk('null'),
    chunk('5'),
    chunk('"a","extra":"b"'),
    chunk('"a'),
    chunk('"\\x"'),
    chunk('"line\nbreak"'),
    '[DONE]',
    '',
  ])('leaves %s to the full parse', (data) => {
    expect(learnt().read(data)).toBeUndefined();
  });

  it('does not mistake another field with the same value for the text', () => {
    const template = new DeltaTemplate();
    const data = chunk('"\\u006d"');
    template.learn(data, { type: 'text', text: 'm' }, parse);
    expect(template.read(data.replace('"m"', '"other"'))).toBeUndefined();
  });

  it('does not learn from a text that occurs twice', () => {
    const template = new DeltaTemplate();
    template.learn(chunk('"m"'), { type: 'text', text: 'm' }, parse);
    expect(template.read(chunk('"m"'))).toBeUndefined();
  });
});
