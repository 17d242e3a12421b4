/** Reads the bodies of requests: decodes them, and bounds their size, their values, and what all of them hold. Knows no route. */
import type { IncomingMessage } from 'node:http';
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { GatewayError } from '../chat/errors.ts';
import type { Hold } from '../gateway/call.ts';
import { atEndOfTurn, inTurnOfItsOwn } from '../turn.ts';
import { bodyHold } from './connection.ts';
import { findExcess, type ValueLimits } from './value-count.ts';

export interface BodyLimits {
  /** Of one body, decoded. */
  readonly bodyLimitBytes: number;
  /** Of all bodies that are held at one time; 0 = no bound. */
  readonly bodiesInFlightBytes: number;
}

const most: ValueLimits = { values: 500_000, members: 10_000 };

const excesses = {
  values: `请求体超过 ${most.values} 个 JSON 值`,
  members: `请求体的一个对象超过 ${most.members} 个成员`,
} as const;

/** Bodies from this length on are parsed one in a turn, so that what others sent is read in between. Bytes. */
const longBody = 256 * 1024;

/** Nobody knows when a body is let go. Seconds. */
const overloadedRetrySeconds = 1;

// Node has zstd from 22.15 on.
const createZstd = (zlib as { createZstdDecompress?: () => Transform }).createZstdDecompress;

const decoders: ReadonlyMap<string, () => Transform> = new Map([
  ['gzip', () => zlib.createGunzip()],
  ['x-gzip', () => zlib.createGunzip()],
  ['deflate', () => zlib.createInflate()],
  ['br', () => zlib.createBrotliDecompress()],
  ...(createZstd === undefined ? [] : ([['zstd', createZstd]] as const)),
]);

const takenEncodings = [...decoders.keys()].filter((name) => !name.startsWith('x-')).join(', ');

/** What a body may be, for those who send another. */
export const takenBodies = `请求体须为 application/json, content-encoding 可用 ${takenEncodings}`;

/** @throws GatewayError UNSUPPORTED_MEDIA_TYPE; undefined where nothing is encoded */
function decoderOf(header: string | undefined): Transform | undefined {
  const encoding = header?.trim().toLowerCase() ?? '';
  if (encoding === '' || encoding === 'identity') return undefined;
  const create = decoders.get(encoding);
  if (create !== undefined) return create();
  throw new GatewayError('UNSUPPORTED_MEDIA_TYPE', {
    detail: takenBodies,
    acceptEncoding: takenEncodings,
  });
}

/** What all bodies hold that were not let go. */
class BodiesInFlight {
  readonly #most: number;
  #bytes = 0;

  constructor(most: number) {
    this.#most = most === 0 ? Number.POSITIVE_INFINITY : most;
  }

  /** What one body takes of it, 0 at first. */
  hold(): CountedHold {
    return new CountedHold((more) => this.#add(more));
  }

  /** @throws GatewayError OVERLOADED */
  #add(bytes: number): void {
    if (bytes > 0 && this.#bytes + bytes > this.#most) {
      throw new GatewayError('OVERLOADED', { retryAfterSeconds: overloadedRetrySeconds });
    }
    this.#bytes += bytes;
  }
}

class CountedHold implements Hold {
  readonly #add: (bytes: number) => void;
  #bytes = 0;
  #released = false;

  constructor(add: (bytes: number) => void) {
    this.#add = add;
  }

  /** From now on it is so many bytes. @throws GatewayError OVERLOADED */
  set(bytes: number): void {
    if (this.#released) return;
    this.#add(bytes - this.#bytes);
    this.#bytes = bytes;
  }

  release(): void {
    this.set(0);
    this.#released = true;
  }
}

/** Takes the bytes of one body as they come. */
class BodyReading {
  readonly #payload: IncomingMessage;
  readonly #decoder: Transform | undefined;
  readonly #limit: number;
  readonly #hold: CountedHold;
  readonly #declared: number;
  readonly #done: (error: Error | null, body?: Buffer) => void;
  readonly #chunks: Buffer[] = [];
  #length = 0;
  #over = false;

  /** @throws GatewayError for a body that is refused unread */
  constructor(
    request: FastifyRequest,
    payload: IncomingMessage,
    limit: number,
    hold: CountedHold,
    done: (error: Error | null, body?: Buffer) => void,
  ) {
    this.#decoder = decoderOf(request.headers['content-encoding']);
    // In chunks it has none.
    this.#declared = Number(request.headers['content-length'] ?? 0);
    if (this.#declared > limit) throw new GatewayError('PAYLOAD_TOO_LARGE');
    hold.set(this.#declared);
    this.#payload = payload;
    this.#limit = limit;
    this.#hold = hold;
    this.#done = done;
    payload.on('error', (error) => this.#end(error));
    if (this.#decoder !== undefined) {
      payload.pipe(this.#decoder);
      this.#decoder.on('error', () => this.#end(undecodable));
    }
    const source = this.#decoder ?? payload;
    source.on('data', (chunk: Buffer) => this.#take(chunk));
    source.on('end', () => this.#end(null));
  }

  #take(chunk: Buffer): void {
    if (this.#over) return;
    this.#length += chunk.length;
    if (this.#length > this.#limit) {
      this.#end(new GatewayError('PAYLOAD_TOO_LARGE'));
      return;
    }
    this.#chunks.push(chunk);
    if (this.#decoder === undefined && this.#length <= this.#declared) return;
    try {
      this.#hold.set(this.#length + (this.#decoder === undefined ? 0 : this.#declared));
    } catch (error) {
      this.#end(error as GatewayError);
    }
  }

  #end(error: Error | null): void {
    if (this.#over) return;
    this.#over = true;
    if (error === null) {
      const [first] = this.#chunks;
      const single = first !== undefined && this.#chunks.length === 1;
      this.#done(null, single ? first : Buffer.concat(this.#chunks, this.#length));
      return;
    }
    this.#chunks.length = 0;
    if (this.#decoder !== undefined) {
      this.#payload.unpipe(this.#decoder);
      this.#decoder.destroy();
    }
    // What still comes is read and dropped, else its sender would never read the answer.
    this.#payload.resume();
    this.#done(error);
  }
}

const undecodable = new GatewayError('INVALID_PARAMS', {
  detail: '请求体与 content-encoding 不符',
});

/** From now on bodies are JSON and nothing else. */
export function registerBodies(app: FastifyInstance, limits: BodyLimits): void {
  const bodies = new BodiesInFlight(limits.bodiesInFlightBytes);
  // text/plain would reach a handler as a bare string.
  app.removeContentTypeParser(['text/plain', 'application/json']);
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', (request, payload: IncomingMessage, done) => {
    const hold = bodies.hold();
    payload[bodyHold] = hold;
    if (request.call !== undefined) request.call.body = hold;
    const parse = (body: Buffer): void => {
      const excess = findExcess(body, most);
      if (excess === undefined) parseJson(request, body.toString(), done);
      else done(new GatewayError('INVALID_PARAMS', { detail: excesses[excess] }));
    };
    try {
      new BodyReading(request, payload, limits.bodyLimitBytes, hold, (error, body) => {
        if (error !== null || body === undefined) done(error);
        else if (body.length < longBody) atEndOfTurn(() => parse(body));
        else inTurnOfItsOwn(() => parse(body));
      });
    } catch (error) {
      done(error as GatewayError);
    }
  });
}
