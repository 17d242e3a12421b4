/** Chooses the SQLite engine that runs on this Node. Knows no file and no table. */
import type SqliteDatabase from 'better-sqlite3';

/** What opens databases: the class of better-sqlite3, the same in both of its versions. */
export type Sqlite = typeof SqliteDatabase;

/** No engine can be used on this Node. Its message is one line for the operator. */
export class MissingSqliteError extends Error {}

/** The first Node whose native interface version 13 was built for; on an earlier one it crashes the process. */
const firstNodeOfVersion13 = 22;

export interface Engine {
  readonly version: string;
  readonly load: () => Promise<{ readonly default: Sqlite }>;
}

/**
 * In order of preference. Version 13 brings prebuilt binaries in its package, and npm leaves it out on Node 20 by its `engines`.
 * Version 12 runs there, but where it was compiled against Node 24.20 or later it aborts in the garbage collector.
 */
export function enginesFor(nodeMajor: number): readonly Engine[] {
  const version12: Engine = { version: '12', load: () => import('better-sqlite3-12') };
  const version13: Engine = { version: '13', load: () => import('better-sqlite3') };
  return nodeMajor >= firstNodeOfVersion13 ? [version13, version12] : [version12];
}

/**
 * The first engine that opens a database; its native part is loaded by that, and not by the import.
 * @throws MissingSqliteError where none does
 */
export async function loadSqlite(
  engines: readonly Engine[] = enginesFor(Number.parseInt(process.versions.node, 10)),
): Promise<Sqlite> {
  const reasons: string[] = [];
  for (const { version, load } of engines) {
    try {
      const { default: sqlite } = await load();
      new sqlite(':memory:').close();
      return sqlite;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      reasons.push(`better-sqlite3 ${version}: ${message.split('\n', 1)[0]}`);
    }
  }
  throw new MissingSqliteError(
    `no SQLite engine for Node ${process.versions.node} on ${process.platform}-${process.arch}: run "npm ci" with the Node that serves; ` +
      `on Node 20 or another platform it compiles, which takes python3, make, g++ and Node's headers (${reasons.join('; ')})`,
  );
}
