/** How a simulated upstream delivers an answer, and every way in which it can fail to. Knows no provider's wire. */
import { once } from 'node:events';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { Exchange } from './server.ts';

/** Milliseconds, or whatever the test resolves. */
export type Wait = number | Promise<unknown>;

/**
 * A place in an answer. `start`: before the headers; `headers`: after them; a number: after that many frames;
 * `before-text` and `after-text`: around the first frame with text, reasoning or a tool call; `before-finish`: before the
 * frame that tells how it ended; `before-last`: before the closing frame (`[DONE]`, `chat.end`); `end`: after all
 * of it, with the connection still open. In an answer that is not streamed all places after `headers` are
 * the middle of the body, but `end`.
 */
export type At =
  | 'start'
  | 'headers'
  | 'before-text'
  | 'after-text'
  | 'before-finish'
  | 'before-last'
  | 'end'
  | number;

/** `destroy` closes the socket, `reset` sends a TCP reset, `end` ends the body as if nothing were wrong. */
export type Cut = 'destroy' | 'reset' | 'end';

export interface ScriptedError {
  readonly at: At;
  readonly message?: string;
  /** `{"error":{"message":…}}` or `{"error":"…"}`; the former if unset. */
  readonly shape?: 'object' | 'string';
  readonly type?: string;
  readonly code?: string;
  /** The frame has an `event: error` line, where the wire does not always send one. */
  readonly named?: boolean;
  /** Whether the wire's closing frame still follows; true if unset. */
  readonly closing?: boolean;
  /** Of an answer that is not streamed; 500 if unset. */
  readonly status?: number;
}

export interface ScriptedToolCall {
  readonly name: string;
  /** As one text, or as the pieces in which it is streamed. */
  readonly arguments: string | readonly string[];
  readonly id?: string;
}

/** What the model says, where a test wants to know better than the simulator. */
export interface ScriptedContent {
  /** A text that is cut into tokens, or the very pieces to stream. */
  readonly text?: string | readonly string[];
  readonly reasoning?: string | readonly string[];
  /** Where a chat-completions wire puts the reasoning; `think` writes it into the text in `<think>` tags. */
  readonly reasoningIn?: 'reasoning_content' | 'reasoning' | 'think';
  readonly toolCalls?: readonly ScriptedToolCall[];
  /** null: the upstream never tells how it ended. */
  readonly finishReason?: string | null;
  /** The provider's own word beside the finish reason, e.g. LM Studio's `stats.stop_reason`. */
  readonly stopReason?: string;
  /** false: it is left out, even where it was asked for. */
  readonly usage?: false | { readonly input: number; readonly output: number; readonly reasoning?: number };
  /** The model that claims to have answered. */
  readonly model?: string;
  /** `zero-tokens`: a whole answer with nothing in it; `no-delta`: a stream without any; `no-choices`: `choices: []`. */
  readonly empty?: 'zero-tokens' | 'no-delta' | 'no-choices';
  /** The last piece of text and the finish reason come in one delta. */
  readonly finishWithText?: boolean;
}

/** One request's fate. Members combine; what is unset happens as it would on a good day. */
export interface Script extends ScriptedContent {
  /** Before the headers: a queue, or a model that loads without a word. */
  readonly hold?: Wait;
  /** This instead of an answer. A body that is not a string is sent as JSON. */
  readonly answer?: {
    readonly status: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body: unknown;
  };
  /** Exactly these bytes, with waits between them. `ending` is `end` if unset; `hang` leaves the connection open. */
  readonly raw?: {
    readonly status?: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly pieces: readonly (string | Uint8Array | Wait)[];
    readonly ending?: Cut | 'hang';
  };
  readonly cut?: { readonly at: At; readonly how?: Cut };
  /** Silence; for good (until the client leaves) if `until` is unset. */
  readonly stall?: { readonly at: At; readonly until?: Wait };
  /** Nothing but comments from there on, until the client leaves or `until` is over. */
  readonly heartbeats?: { readonly at: At; readonly everyMs: number; readonly until?: Promise<unknown> };
  readonly error?: ScriptedError;
  /** Bytes that do not belong there. */
  readonly insert?: { readonly at: At; readonly bytes: string | Uint8Array };
  readonly newline?: '\n' | '\r\n' | '\r';
  readonly bom?: boolean;
  /** At most so many bytes in one write, each write in a turn of its own. */
  readonly bytesPerWrite?: number;
  readonly framesPerWrite?: number;
  /** Silence before each frame, instead of the simulator's own speed; 0 sends everything at once. Milliseconds. */
  readonly gapMs?: number;
}

/** A server-sent event, and what it is for the places of `At`. */
export interface Frame {
  readonly kind: 'lifecycle' | 'content' | 'finish' | 'closing';
  readonly event?: string;
  readonly data: string;
  /** Silence before it, in milliseconds. */
  readonly waitMs?: number;
}

/** What a simulator wants to answer; the script decides what becomes of it. */
export type Answer =
  | {
      readonly kind: 'json';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body: unknown;
      /** Before the headers, in milliseconds. */
      readonly waitMs?: number;
    }
  | {
      readonly kind: 'stream';
      readonly frames: readonly Frame[];
      readonly waitMs?: number;
      /** What the wire sends when it fails after `sent`, its closing frame included if the error says so. */
      failure(error: ScriptedError, sent: readonly Frame[]): readonly Frame[];
    };

/** Scripts for requests to come: those queued first, each once, then the standing one. */
export interface ScriptQueue<S extends Script> {
  next(...scripts: readonly S[]): void;
  /** undefined: back to good days */
  always(script: S | undefined): void;
  take(): S | undefined;
  clear(): void;
}

export function createScriptQueue<S extends Script>(): ScriptQueue<S> {
  let queued: S[] = [];
  let standing: S | undefined;
  return {
    next: (...scripts) => void queued.push(...scripts),
    always(script) {
      standing = script;
    },
    take: () => queued.shift() ?? standing,
    clear() {
      queued = [];
      standing = undefined;
    },
  };
}

/** The error body that most upstreams share, in either shape. */
export function errorBody(error: Omit<ScriptedError, 'at'>): unknown {
  const message = error.message ?? 'The model has crashed without additional information.';
  if (error.shape === 'string') return { error: message };
  return {
    error: {
      message,
      ...(error.type === undefined ? {} : { type: error.type }),
      ...(error.code === undefined ? {} : { code: error.code }),
    },
  };
}

/** Answers one request as the script wants it. Returns when the answer is over, or the client is gone. */
export async function deliver(exchange: Exchange, answer: Answer, script: Script = {}): Promise<void> {
  try {
    if (script.hold !== undefined) await pause(script.hold, exchange.gone);
    if (script.raw !== undefined) return await deliverRaw(exchange, script.raw, script);
    if (script.stall?.at === 'start') await stall(script.stall.until, exchange.gone);
    if (script.cut?.at === 'start') return await cut(exchange, script.cut.how ?? 'destroy');
    if (script.answer !== undefined) return await deliverBody(exchange, script.answer, script);
    if (answer.waitMs !== undefined) await pause(answer.waitMs, exchange.gone);
    if (answer.kind === 'stream') return await deliverStream(exchange, answer, script);
    if (script.error !== undefined) {
      const failed = { status: script.error.status ?? 500, body: errorBody(script.error) };
      return await deliverBody(exchange, failed, script);
    }
    await deliverBody(exchange, answer, script);
  } catch (error) {
    if (!exchange.gone.aborted) throw error;
  }
}

async function deliverStream(
  exchange: Exchange,
  answer: Extract<Answer, { kind: 'stream' }>,
  script: Script,
): Promise<void> {
  const { response, record } = exchange;
  const { frames } = answer;
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache',
    connection: 'keep-alive',
  });
  response.flushHeaders();
  if (script.bom) await write(exchange, '\uFEFF', script);
  const incidents = plan(exchange, answer, script);
  let batch = '';
  let batched = 0;
  const flush = async (): Promise<void> => {
    if (batched > 0) await write(exchange, batch, script);
    record.framesSent += batched;
    batch = '';
    batched = 0;
  };
  for (let index = 0; index <= frames.length; index += 1) {
    for (const incident of incidents) {
      if (incident.index !== index) continue;
      await flush();
      if ((await incident.happen()) === 'over') return;
    }
    const frame = frames[index];
    if (frame === undefined) break;
    const waitMs = script.gapMs ?? frame.waitMs ?? 0;
    if (waitMs > 0) {
      await flush();
      await pause(waitMs, exchange.gone);
    }
    batch += encodeFrame(frame, script);
    batched += 1;
    if (batched >= (script.framesPerWrite ?? 1)) await flush();
  }
  await flush();
  response.end();
}

interface Incident {
  /** The frames that come before it. */
  readonly index: number;
  happen(): Promise<'goes on' | 'over'>;
}

function plan(
  exchange: Exchange,
  answer: Extract<Answer, { kind: 'stream' }>,
  script: Script,
): readonly Incident[] {
  const { insert, heartbeats, stall: silence, error, cut: ending } = script;
  const place = (at: At): number => indexOf(at, answer.frames);
  const incidents: Incident[] = [];
  const add = (at: At, happen: Incident['happen']): void => void incidents.push({ index: place(at), happen });
  if (insert !== undefined) {
    add(insert.at, async () => {
      await write(exchange, insert.bytes, script);
      return 'goes on';
    });
  }
  if (heartbeats !== undefined) {
    add(heartbeats.at, async () => {
      await beat(exchange, heartbeats.everyMs, heartbeats.until, script);
      return 'goes on';
    });
  }
  if (silence !== undefined && silence.at !== 'start') {
    add(silence.at, async () => {
      await stall(silence.until, exchange.gone);
      return 'goes on';
    });
  }
  if (error !== undefined) {
    add(error.at, async () => {
      const sent = answer.frames.slice(0, place(error.at));
      for (const frame of answer.failure(error, sent)) {
        await write(exchange, encodeFrame(frame, script), script);
      }
      exchange.response.end();
      return 'over';
    });
  }
  if (ending !== undefined) {
    add(ending.at, async () => {
      await cut(exchange, ending.how ?? 'destroy');
      return 'over';
    });
  }
  return incidents;
}

function indexOf(at: At, frames: readonly Frame[]): number {
  if (typeof at === 'number') return Math.min(at, frames.length);
  const first = (kind: Frame['kind']): number => {
    const index = frames.findIndex((frame) => frame.kind === kind);
    return index === -1 ? Math.max(0, frames.length - 1) : index;
  };
  switch (at) {
    case 'start':
    case 'headers':
      return 0;
    case 'before-text':
      return first('content');
    case 'after-text':
      return Math.min(first('content') + 1, frames.length);
    case 'before-finish':
      return first('finish');
    case 'before-last':
      return Math.max(0, frames.length - 1);
    case 'end':
      return frames.length;
    default:
      throw new Error(`no such place: ${String(at satisfies never)}`);
  }
}

async function deliverBody(
  exchange: Exchange,
  answer: {
    readonly status: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body: unknown;
  },
  script: Script,
): Promise<void> {
  const { response } = exchange;
  const isText = typeof answer.body === 'string';
  const bytes = Buffer.from(isText ? String(answer.body) : JSON.stringify(answer.body));
  const places = [script.insert, script.heartbeats, script.stall, script.cut];
  const whole = places.every((incident) => incident === undefined);
  response.writeHead(answer.status, {
    'content-type': isText ? 'text/plain; charset=utf-8' : 'application/json; charset=utf-8',
    // With a length, a body that ends early is a broken message; without one it just ends.
    ...(whole ? { 'content-length': String(bytes.length) } : {}),
    ...answer.headers,
  });
  if (whole) {
    if (script.bytesPerWrite !== undefined) await write(exchange, bytes, script);
    response.end(script.bytesPerWrite === undefined ? bytes : undefined);
    return;
  }
  response.flushHeaders();
  const middle = Math.floor(bytes.length / 2);
  const stops = { headers: 0, middle, end: bytes.length };
  let sent = 0;
  for (const stop of ['headers', 'middle', 'end'] as const) {
    await write(exchange, bytes.subarray(sent, stops[stop]), script);
    sent = stops[stop];
    if ((await happenInBody(exchange, script, stop)) === 'over') return;
  }
  response.end();
}

async function happenInBody(
  exchange: Exchange,
  script: Script,
  stop: 'headers' | 'middle' | 'end',
): Promise<'goes on' | 'over'> {
  const { insert, heartbeats, stall: silence, cut: ending } = script;
  const here = (at: At | undefined): boolean => {
    if (at === undefined || at === 'start') return false;
    return (at === 'headers' || at === 'end' ? at : 'middle') === stop;
  };
  if (insert !== undefined && here(insert.at)) await write(exchange, insert.bytes, script);
  // A body has no comments: what would beat in a stream is silent here.
  if (heartbeats !== undefined && here(heartbeats.at)) await stall(heartbeats.until, exchange.gone);
  if (silence !== undefined && here(silence.at)) await stall(silence.until, exchange.gone);
  if (ending === undefined || !here(ending.at)) return 'goes on';
  await cut(exchange, ending.how ?? 'destroy');
  return 'over';
}

async function deliverRaw(
  exchange: Exchange,
  raw: NonNullable<Script['raw']>,
  script: Script,
): Promise<void> {
  exchange.response.writeHead(raw.status ?? 200, raw.headers ?? { 'content-type': 'text/event-stream' });
  exchange.response.flushHeaders();
  for (const piece of raw.pieces) {
    if (typeof piece === 'string' || piece instanceof Uint8Array) await write(exchange, piece, script);
    else await pause(piece, exchange.gone);
  }
  if (raw.ending === 'hang') await stall(undefined, exchange.gone);
  else await cut(exchange, raw.ending ?? 'end');
}

function encodeFrame(frame: Frame, script: Script): string {
  const newline = script.newline ?? '\n';
  const name = frame.event === undefined ? '' : `event: ${frame.event}${newline}`;
  return `${name}data: ${frame.data}${newline}${newline}`;
}

async function write(exchange: Exchange, data: string | Uint8Array, script: Script): Promise<void> {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  const size = script.bytesPerWrite ?? bytes.length;
  for (let start = 0; start < bytes.length; start += size) {
    exchange.gone.throwIfAborted();
    const piece = bytes.subarray(start, start + size);
    exchange.record.bytesSent += piece.length;
    if (!exchange.response.write(piece)) await once(exchange.response, 'drain', { signal: exchange.gone });
    // Node gathers the writes of one turn into one segment.
    if (script.bytesPerWrite !== undefined) await nextTurn();
  }
}

async function cut(exchange: Exchange, how: Cut): Promise<void> {
  const { response } = exchange;
  if (how === 'end') {
    response.end();
    return;
  }
  const wrote = response.headersSent;
  await nextTurn();
  // What still waits in this process would be lost with the socket, and with it the place of the cut.
  while ((response.socket?.writableLength ?? 0) > 0) await sleep(1, undefined, { signal: exchange.gone });
  exchange.record.cutByServer = true;
  if (how === 'destroy') {
    response.destroy();
    return;
  }
  // A reset also throws away what the other side has received and not yet read.
  if (wrote) await sleep(20, undefined, { signal: exchange.gone });
  response.socket?.resetAndDestroy();
}

async function beat(
  exchange: Exchange,
  everyMs: number,
  until: Promise<unknown> | undefined,
  script: Script,
): Promise<void> {
  let over = false;
  void until?.then(() => {
    over = true;
  });
  const newline = script.newline ?? '\n';
  while (!over) {
    await write(exchange, `: keep-alive${newline}${newline}`, script);
    await sleep(everyMs, undefined, { signal: exchange.gone });
  }
}

async function stall(until: Wait | undefined, gone: AbortSignal): Promise<void> {
  await pause(until ?? new Promise(() => {}), gone);
}

/** @throws when the client left before the wait was over */
async function pause(wait: Wait, gone: AbortSignal): Promise<void> {
  if (typeof wait === 'number') {
    if (wait > 0) await sleep(wait, undefined, { signal: gone });
    return;
  }
  gone.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const leave = (): void => reject(gone.reason);
    gone.addEventListener('abort', leave, { once: true });
    wait.then(
      () => {
        gone.removeEventListener('abort', leave);
        resolve();
      },
      (error: unknown) => {
        gone.removeEventListener('abort', leave);
        reject(error);
      },
    );
  });
}
