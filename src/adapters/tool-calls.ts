/**
 * The tool calls of one answer, brought into OpenAI's form whatever the upstream made of it: every call has an id, indices
 * go from 0 on without a gap, and arguments are JSON text. Knows no wire but the members that a piece of a call may have.
 */
import type { ToolCallDelta } from '../chat/events.ts';

/** What an upstream told of a call at once: all of it, or a piece. Members that it left out or empty are undefined. */
export interface ToolCallPiece {
  /** From 0 on, or from 1, or with gaps: only a help to tell calls apart. */
  readonly index: number | undefined;
  readonly id: string | undefined;
  readonly name: string | undefined;
  /** A piece of JSON text. */
  readonly arguments: string | undefined;
}

interface Call {
  /** As the client sees it. */
  readonly index: number;
  /** The upstream's own; undefined where it has none. */
  id: string | undefined;
  named: boolean;
  arguments: string;
}

/** Ids name calls in the whole conversation that the client sends back, so they must not repeat from answer to answer. */
const makeId = (): string => `call_${globalThis.crypto.randomUUID().replaceAll('-', '').slice(0, 24)}`;

function isWhole(json: string): boolean {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}

/** Reads the pieces of one answer in their order. */
export class ToolCalls {
  readonly #calls: Call[] = [];
  readonly #byIndex = new Map<number, Call>();
  readonly #byId = new Map<string, Call>();
  #last: Call | undefined;

  /** Whether the model called anything. */
  get any(): boolean {
    return this.#calls.length > 0;
  }

  /** The pieces that one chunk held, or all of a whole answer. Pieces that say nothing give nothing. */
  read(pieces: readonly ToolCallPiece[]): ToolCallDelta[] {
    const deltas: ToolCallDelta[] = [];
    pieces.forEach((piece, position) => {
      const delta = this.#piece(piece, position);
      if (delta !== undefined) deltas.push(delta);
    });
    return deltas;
  }

  /** At the end of the answer: the arguments of calls that have none. */
  end(): ToolCallDelta[] {
    return this.#calls.flatMap((call) =>
      call.arguments.trim() === '' ? [{ index: call.index, function: { arguments: '{}' } }] : [],
    );
  }

  #piece(piece: ToolCallPiece, position: number): ToolCallDelta | undefined {
    const { id, name, arguments: text = '' } = piece;
    if (!id && !name && text === '') return undefined;
    const known = this.#find(piece, position);
    const call = known ?? this.#begin(piece);
    const first = known === undefined;
    this.#last = call;
    if (piece.index !== undefined) this.#byIndex.set(piece.index, call);
    const naming = name && !call.named ? name : undefined;
    call.named ||= naming !== undefined;
    call.arguments += text;
    if (!first && naming === undefined && text === '') return undefined;
    return {
      index: call.index,
      ...(first ? { id: call.id ?? makeId(), type: 'function' as const } : {}),
      function: { ...(naming === undefined ? {} : { name: naming }), arguments: text },
    };
  }

  #begin({ id }: ToolCallPiece): Call {
    // Two calls of one id could not be answered apart.
    const own = id && !this.#byId.has(id) ? id : undefined;
    const call: Call = { index: this.#calls.length, id: own, named: false, arguments: '' };
    this.#calls.push(call);
    if (own !== undefined) this.#byId.set(own, call);
    return call;
  }

  /** The call that a piece continues; undefined where it begins one. */
  #find(piece: ToolCallPiece, position: number): Call | undefined {
    const { index, id, name } = piece;
    const sameId = id ? this.#byId.get(id) : undefined;
    if (index === undefined) {
      if (sameId !== undefined) return sameId;
      // Where nothing is numbered, the second of one chunk is another call than the first.
      if (!id && position > 0) return name ? undefined : (this.#calls[position] ?? this.#last);
    }
    const there = index === undefined ? this.#last : this.#byIndex.get(index);
    // Some count an index up for each piece of one call.
    if (there === undefined) return name ? undefined : sameId;
    // Many servers give all calls the index 0, and tell them apart by their ids; others give each piece of a call an id of its own.
    if (id && id !== there.id) {
      if (sameId !== undefined) return sameId;
      return name && there.named ? undefined : there;
    }
    return this.#repeats(piece, there) ? undefined : there;
  }

  /** Calls of one index without ids: some servers repeat the name with each piece, so only one behind a whole call begins another. */
  #repeats({ id, name, arguments: text }: ToolCallPiece, { named, arguments: before }: Call): boolean {
    return !id && Boolean(name) && named && Boolean(text) && isWhole(before);
  }
}
