/** The command `doctor`. */
import { type Finding, fatal, type Severity } from '../admin/diagnosis.ts';
import { examine } from '../admin/doctor.ts';
import { ConfigError } from '../config.ts';
import { StoreError } from '../store/database.ts';
import { inspectDatabase } from '../store/health.ts';
import { type Command, jsonOption } from './command.ts';
import { print, printJson } from './output.ts';
import { withSession } from './session.ts';

/** Also what keeps the doctor from looking further is a finding. */
async function diagnose(): Promise<readonly Finding[]> {
  try {
    return await withSession((session) =>
      examine(session, inspectDatabase(session.store, session.config.databasePath)),
    );
  } catch (error) {
    if (error instanceof ConfigError) {
      return [fatal('configuration', error.message, 'correct the variable; .env.example explains each')];
    }
    if (error instanceof StoreError) {
      return [fatal('database', error.message, 'correct DATABASE_URL, or mend the file')];
    }
    throw error;
  }
}

const signs: Readonly<Record<Severity, string>> = {
  ok: 'ok      ',
  note: 'note    ',
  problem: 'PROBLEM ',
};

function printFindings(findings: readonly Finding[]): void {
  const subjects = [...new Set(findings.map(({ subject }) => subject))];
  for (const subject of subjects) {
    print(subject);
    for (const { severity, message, action } of findings.filter((one) => one.subject === subject)) {
      print(`  ${signs[severity]}${message}`);
      if (action !== null) print(`          -> ${action}`);
    }
    print('');
  }
  const count = (severity: Severity): number => findings.filter((one) => one.severity === severity).length;
  const [problems, notes] = [count('problem'), count('note')];
  const plural = (amount: number, what: string): string => `${amount} ${what}${amount === 1 ? '' : 's'}`;
  print(`${problems === 0 ? 'No problem' : plural(problems, 'problem')}, ${plural(notes, 'note')}.`);
}

export const doctorCommand: Command = {
  name: 'doctor',
  about: 'Look at the database and ask every provider, and say what is wrong and what to do about it',
  options: jsonOption,
  notes:
    'Loads no model, costs nothing and changes nothing but a database that is missing or old. It sees the variables of this\n' +
    'shell and of .env; run it where the server runs. Exit code 1 if there is a problem.',
  run: async ({ options }) => {
    const findings = await diagnose();
    if (options['json'] === true) printJson(findings);
    else printFindings(findings);
    return findings.some(({ severity }) => severity === 'problem') ? 1 : 0;
  },
};
