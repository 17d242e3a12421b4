/** Turns measurements into Markdown tables of medians. Knows no suite. */

/** One number of one measurement. */
export interface Column {
  readonly title: string;
  readonly key: string;
  /** After the decimal point. */
  readonly digits: number;
  /** Over the repetitions. */
  readonly over: 'median' | 'sum' | 'max';
}

export interface Table {
  readonly suite: string;
  readonly title: string;
  readonly columns: readonly Column[];
  /** The column that is also given as a multiple of the bare pass-through's. */
  readonly compared?: string;
}

export interface Measurement {
  readonly suite: string;
  readonly case: string;
  readonly target: string;
  readonly rep: number;
  readonly values: Readonly<Record<string, number>>;
  /** What went wrong, and how often. */
  readonly errors: Readonly<Record<string, number>>;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

function combine(values: readonly number[], over: Column['over']): number {
  if (over === 'median') return median(values);
  if (values.length === 0) return Number.NaN;
  return over === 'sum' ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values);
}

const format = (value: number, digits: number): string =>
  Number.isFinite(value)
    ? value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : '';

/** One line of progress. A target that gave no good answer has no figures, but tells that. */
export function describeMeasurement({ suite, case: name, target, values, errors }: Measurement): string {
  const known = Object.entries(values).filter(([, value]) => Number.isFinite(value));
  const figures = known.map(([key, value]) => `${key} ${value.toPrecision(4)}`);
  if (known.length < Object.keys(values).length) {
    const reasons = Object.keys(errors).slice(0, 3).join('; ');
    figures.push(`no good answer${reasons === '' ? '' : ` (${reasons})`}`);
  }
  return `${suite} | ${name} | ${target} | ${figures.join(', ')}`;
}

export function renderTable(table: Table, all: readonly Measurement[]): string {
  const mine = all.filter(({ suite }) => suite === table.suite);
  const cases = [...new Set(mine.map((one) => one.case))];
  const { compared } = table;
  const titles = table.columns.flatMap(({ title, key }) => (key === compared ? [title, 'vs bare'] : [title]));
  const lines = [
    `### ${table.title}`,
    '',
    `| case | target | ${titles.join(' | ')} |`,
    `|---|---|${titles.map(() => '--:').join('|')}|`,
  ];
  for (const name of cases) {
    const inCase = mine.filter((one) => one.case === name);
    const figureOf = (target: string, { key, over }: Column): number =>
      combine(
        inCase
          .filter((one) => one.target === target)
          .flatMap(({ values }) => values[key] ?? [])
          .filter(Number.isFinite),
        over,
      );
    for (const target of new Set(inCase.map((one) => one.target))) {
      const cells = table.columns.flatMap((column) => {
        const value = figureOf(target, column);
        const cell = format(value, column.digits);
        return column.key === compared ? [cell, format(value / figureOf('bare', column), 2)] : [cell];
      });
      lines.push(`| ${name} | ${target} | ${cells.join(' | ')} |`);
    }
  }
  return `${lines.join('\n')}\n${renderErrors(mine)}`;
}

function renderErrors(measurements: readonly Measurement[]): string {
  const lines = measurements.flatMap(({ case: name, target, rep, errors }) =>
    Object.entries(errors).map(
      ([error, count]) => `- ${target}, ${name}, run ${rep}: ${error} (${count} times)`,
    ),
  );
  return lines.length === 0 ? '' : `\nFailures:\n${lines.join('\n')}\n`;
}
