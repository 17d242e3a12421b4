/** Counts a stream's events without parsing them. */

const lineFeed = 10;
const letterD = 'd'.charCodeAt(0);
const bracket = '['.charCodeAt(0);
/** In `data: [DONE]` the bracket stands here, where JSON has a brace. */
const valueColumn = 6;

export interface EventCounter {
  /** `data:` lines so far, `[DONE]` left out; comments do not count. */
  events: number;
  done: boolean;
  count(bytes: Buffer, start: number, end: number): void;
  reset(): void;
}

export function createEventCounter(): EventCounter {
  /** How much of the current line came with earlier pieces. */
  let column = 0;
  let isData = false;
  return {
    events: 0,
    done: false,
    reset() {
      this.events = 0;
      this.done = false;
      column = 0;
    },
    count(bytes, start, end) {
      let lineStart = start - column;
      let at = start;
      while (at < end) {
        if (at === lineStart) {
          isData = bytes[at] === letterD;
          if (isData) this.events += 1;
        }
        const value = lineStart + valueColumn;
        if (isData && value >= at && value < end && bytes[value] === bracket) {
          this.done = true;
          this.events -= 1;
        }
        const feed = bytes[at] === lineFeed ? at : bytes.indexOf(lineFeed, at);
        if (feed < 0 || feed >= end) break;
        at = feed + 1;
        lineStart = at;
      }
      column = end - lineStart;
    },
  };
}
