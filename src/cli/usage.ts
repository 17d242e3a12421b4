/** The command `usage`. */
import { reportUsage, type UsageView, usageGroupings, usageSeries } from '../admin/usage.ts';
import { type Command, fieldsOf, jsonOption } from './command.ts';
import { print, printJson, printTable } from './output.ts';
import { withSession } from './session.ts';

const columns = [
  ['REQUESTS', 'requests'],
  ['INPUT', 'input_tokens'],
  ['OUTPUT', 'output_tokens'],
  ['TOTAL', 'total_tokens'],
  ['REASONING', 'reasoning_tokens'],
  ['UNKNOWN', 'unknown_usage'],
  ['ATTEMPTS', 'attempts'],
  ['QUEUED MS', 'average_queued_ms'],
  ['FIRST TOKEN MS', 'average_first_token_ms'],
  ['DURATION MS', 'average_duration_ms'],
] as const satisfies readonly (readonly [string, keyof UsageView])[];

function printReport(by: string, rows: readonly UsageView[]): void {
  const isSeries = rows.some((row) => row.period !== null);
  printTable(
    [...(isSeries ? ['PERIOD'] : []), by.toUpperCase(), ...columns.map(([heading]) => heading)],
    rows.map((row) => [
      ...(isSeries ? [row.period ?? ''] : []),
      row.group === '' ? '(none)' : row.group,
      ...columns.map(([, field]) => String(row[field] ?? '-')),
    ]),
  );
}

/** A cell as RFC 4180 has it; one that a spreadsheet would run as a formula is made text by an apostrophe. */
function csvCell(value: string | number | null): string {
  if (typeof value !== 'string') return String(value ?? '');
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function printCsv(by: string, rows: readonly UsageView[]): void {
  print(['period', by, ...columns.map(([, field]) => field)].join(','));
  for (const row of rows) {
    print([row.period, row.group, ...columns.map(([, field]) => row[field])].map(csvCell).join(','));
  }
}

export const usageCommands: readonly Command[] = [
  {
    name: 'usage',
    about: 'Report what was used: requests, tokens and times',
    options: {
      by: { kind: 'text', value: 'GROUP', about: `${usageGroupings.join(', ')}; model unless set` },
      since: { kind: 'text', value: 'TIME', about: 'e.g. 90m, 24h, 7d or 2025-01-31; 7d unless set' },
      until: { kind: 'text', value: 'TIME', about: 'the same; now unless set' },
      series: { kind: 'text', value: 'PERIOD', about: `a line for each ${usageSeries.join(' or ')}` },
      ...jsonOption,
      csv: { kind: 'switch', about: 'print comma-separated values' },
    },
    notes:
      'Dates are UTC. UNKNOWN counts calls whose tokens the upstream did not report; they are estimated.\n' +
      'The times are averages per call in milliseconds.',
    run: (given) =>
      withSession(async (session) => {
        const { csv, ...fields } = fieldsOf(given);
        const rows = await reportUsage(session, fields);
        const by = typeof fields['by'] === 'string' ? fields['by'] : 'model';
        if (given.options['json'] === true) printJson(rows);
        else if (csv === true) printCsv(by, rows);
        else printReport(by, rows);
        return 0;
      }),
  },
];
