/** Keeps characters whole: a delta that ends within a surrogate pair gives its first half to the next one. */
import type { ChatEvent } from '../chat/events.ts';

type Textual = Extract<ChatEvent, { readonly text: string }>;

const isHigh = (code: number): boolean => code >= 0xd800 && code <= 0xdbff;

/**
 * An upstream may split a character beyond U+FFFF between two JSON strings. Half a character is not valid in UTF-8, so it
 * waits for its other half. One per stream.
 */
export class SurrogatePairs {
  readonly #held = { text: '', reasoning: '' };

  /** Passes the event on, completed by what was held and without what must wait. */
  pair(event: ChatEvent, out: ChatEvent[]): void {
    if (event.type !== 'text' && event.type !== 'reasoning') {
      out.push(event);
      return;
    }
    const held = this.#held[event.type];
    if (held === '' && !isHigh(event.text.charCodeAt(event.text.length - 1))) {
      out.push(event);
      return;
    }
    const text = held + event.text;
    const splits = isHigh(text.charCodeAt(text.length - 1));
    this.#held[event.type] = splits ? text.slice(-1) : '';
    const whole = splits ? text.slice(0, -1) : text;
    if (whole !== '') out.push({ ...event, text: whole } satisfies Textual);
  }

  /** At the end: a half that never met its other half becomes U+FFFD. */
  flush(out: ChatEvent[]): void {
    for (const type of ['reasoning', 'text'] as const) {
      if (this.#held[type] !== '') out.push({ type, text: this.#held[type].toWellFormed() });
      this.#held[type] = '';
    }
  }
}
