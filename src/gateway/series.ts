/**
 * Counters and histograms in the Prometheus text format. prom-client looks a series up by its labels for each value, 2 to 4 us
 * a time and eight times a call; here a series is kept in hand, and a value costs an addition. Knows no metric by name.
 */

export type Labels = Readonly<Record<string, string>>;

const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '"': '\\"', '\n': '\\n' };

const escapeValue = (value: string): string =>
  value.toWellFormed().replace(/[\\"\n]/g, (character) => escapes[character] ?? character);

const pairsOf = (labels: Labels): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}="${escapeValue(value)}"`)
    .join(',');

const head = (name: string, help: string, type: string): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;

export interface CounterSeries {
  value: number;
}

export class Counter {
  readonly #name: string;
  readonly #help: string;
  readonly #series = new Map<string, CounterSeries>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  /** The same object for the same labels in the same order; keep it, and add to its value. */
  series(labels: Labels): CounterSeries {
    const pairs = pairsOf(labels);
    const known = this.#series.get(pairs);
    if (known !== undefined) return known;
    const series = { value: 0 };
    this.#series.set(pairs, series);
    return series;
  }

  text(): string {
    let text = head(this.#name, this.#help, 'counter');
    for (const [pairs, { value }] of this.#series) text += `${this.#name}{${pairs}} ${value}\n`;
    return text;
  }
}

export class HistogramSeries {
  readonly #bounds: readonly number[];
  /** One more than there are bounds: the last holds what is beyond them. */
  readonly #counts: number[];
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > (bounds[at] ?? 0)) at += 1;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sum += value;
  }

  text(name: string, pairs: string): string {
    let count = 0;
    let text = '';
    for (const [at, inBucket] of this.#counts.entries()) {
      count += inBucket;
      text += `${name}_bucket{${pairs},le="${this.#bounds[at] ?? '+Inf'}"} ${count}\n`;
    }
    return `${text}${name}_sum{${pairs}} ${this.#sum}\n${name}_count{${pairs}} ${count}\n`;
  }
}

export class Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #bounds: readonly number[];
  readonly #series = new Map<string, HistogramSeries>();

  /** @param bounds upper ends of the buckets, each inclusive, in ascending order */
  constructor(name: string, help: string, bounds: readonly number[]) {
    this.#name = name;
    this.#help = help;
    this.#bounds = bounds;
  }

  /** The same object for the same labels in the same order; at least one label. */
  series(labels: Labels): HistogramSeries {
    const pairs = pairsOf(labels);
    const known = this.#series.get(pairs);
    if (known !== undefined) return known;
    const series = new HistogramSeries(this.#bounds);
    this.#series.set(pairs, series);
    return series;
  }

  text(): string {
    let text = head(this.#name, this.#help, 'histogram');
    for (const [pairs, series] of this.#series) text += series.text(this.#name, pairs);
    return text;
  }
}
