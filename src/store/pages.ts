/** Reading long tables by the page, in order of ids. Knows no table. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Which rows of a list are wanted; all of them where nothing is said. */
export interface Page {
  /** Rows with greater ids only. */
  readonly after?: number | undefined;
  /** Rows at most. */
  readonly limit?: number | undefined;
}

/** Rows that are read at once: some 5 ms in which nothing else runs. */
const pageSize = 1000;

/** All rows, with a turn of the event loop for everybody else between two pages. */
export async function readByPages<Row extends { readonly id: number }>(
  readPage: (page: Page) => Promise<readonly Row[]>,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (;;) {
    const page = await readPage({ after: rows.at(-1)?.id, limit: pageSize });
    for (const row of page) rows.push(row);
    if (page.length < pageSize) return rows;
    await nextTurn();
  }
}
