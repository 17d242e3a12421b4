/**
 * The end of the event loop's turn: calls whose bytes came in together are taken on together there, one right after the other,
 * and not each between two reads of a socket. The code that they share is then still in the processor's caches, and their
 * bytes are written in a row, so that the process which reads them is woken once and not for each. Knows nothing of
 * what it runs.
 */

let waiting: (() => void)[] = [];

function run(): void {
  const now = waiting;
  waiting = [];
  let begun = 0;
  try {
    for (const callback of now) {
      begun += 1;
      callback();
    }
  } finally {
    // One that threw, which ends the process, must not take with it what the others have to do until then.
    for (const callback of now.slice(begun)) atEndOfTurn(callback);
  }
}

/** Runs the callback, which should not throw, as soon as all that has arrived by now was read. */
export function atEndOfTurn(callback: () => void): void {
  if (waiting.length === 0) setImmediate(run);
  waiting.push(callback);
}

const long: (() => void)[] = [];

function runOne(): void {
  const callback = long.shift();
  if (long.length > 0) setImmediate(runOne);
  callback?.();
}

/** Runs a callback that takes its time, and should not throw, in a turn in which no other such callback runs. */
export function inTurnOfItsOwn(callback: () => void): void {
  if (long.length === 0) setImmediate(runOne);
  long.push(callback);
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
