import { describe, expect, it } from 'vitest';
import { Counter, Histogram } from '../../src/gateway/series.ts';

describe('a histogram', () => {
  it('counts a value into the first bucket that holds it and into all after it', () => {
    const histogram = new Histogram('seconds', 'Help.', [0.1, 1]);
    const series = histogram.series({ model: 'a' });
    for (const value of [0.1, 0.100001, 5]) series.observe(value);
    expect(histogram.text()).toBe(
      [
        '# HELP seconds Help.',
        '# TYPE seconds histogram',
        'seconds_bucket{model="a",le="0.1"} 1',
        'seconds_bucket{model="a",le="1"} 2',
        'seconds_bucket{model="a",le="+Inf"} 3',
        'seconds_sum{model="a"} 5.200001',
        'seconds_count{model="a"} 3',
        '',
      ].join('\n'),
    );
  });

  it('gives the same series for the same labels', () => {
    const histogram = new Histogram('seconds', 'Help.', [1]);
    expect(histogram.series({ a: '1', b: '2' })).toBe(histogram.series({ a: '1', b: '2' }));
  });
});

describe('a counter', () => {
  it('escapes what would end a label', () => {
    const counter = new Counter('calls_total', 'Help.');
    counter.series({ model: 'a"b\\c\nd' }).value += 2;
    expect(counter.text()).toContain('calls_total{model="a\\"b\\\\c\\nd"} 2\n');
  });
});
