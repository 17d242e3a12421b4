/**
 * The end of the event loop's turn: a place where calls that came in together are taken on together. One stage's code then runs
 * for all of them before the next stage's does, and their bytes are written one after the other, so that the process
 * which reads them is woken once and not for each. Knows nothing of what it runs.
 */

let waiting: (() => void)[] = [];

function run(): void {
  const now = waiting;
  waiting = [];
  for (const callback of now) callback();
}

/** Runs the callback, which must not throw, as soon as all that has arrived by now was read. */
export function atEndOfTurn(callback: () => void): void {
  if (waiting.length === 0) setImmediate(run);
  waiting.push(callback);
}

let turn: Promise<void> | undefined;

function endTurn(resolve: () => void): void {
  turn = undefined;
  resolve();
}

/** Resolves as soon as all that has arrived by now was read; the same promise for all who ask in one turn. */
export function endOfTurn(): Promise<void> {
  turn ??= new Promise((resolve) => atEndOfTurn(() => endTurn(resolve)));
  return turn;
}
