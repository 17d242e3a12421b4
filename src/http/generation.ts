/** Answers one generation, plain or streamed, in the dialect that its route speaks. Wires a dialect to the engine, and no more. */
import type { FastifyReply } from 'fastify';
import { GatewayError } from '../chat/errors.ts';
import type { ChatResult } from '../chat/events.ts';
import type { GenerationRequest } from '../chat/request.ts';
import type { StreamEncoder } from '../facades/encoder.ts';
import type { Call } from '../gateway/call.ts';
import type { Engine } from '../gateway/engine.ts';
import { startResponse } from './headers.ts';
import { cutOffWhenStalled } from './stall.ts';
import { EventStream, type StreamOptions } from './stream.ts';

export interface GenerationDependencies {
  readonly engine: Engine;
  readonly streamOptions: StreamOptions;
}

/** The body of a request, which keeps it no longer: the answer may stream for hours. */
export function takeBody<Body>(request: { body: Body }): Body {
  const { body } = request;
  (request as { body: unknown }).body = undefined;
  return body;
}

/** What a dialect makes of the answer to a call. */
export interface AnswerDialect {
  /** The body of a plain answer. */
  encodeResult(result: ChatResult, call: Call): unknown;
  encoder(call: Call, stream: EventStream): StreamEncoder;
  /** A refusal in the words of whoever asked. */
  explain(error: GatewayError): GatewayError;
}

/**
 * Resolves when the answer is written. No async function: its frame would keep the request for as long as the answer streams.
 * @throws GatewayError as long as no headers were sent
 */
export function answerGeneration(
  request: GenerationRequest,
  call: Call,
  reply: FastifyReply,
  dialect: AnswerDialect,
  { engine, streamOptions }: GenerationDependencies,
): Promise<void> {
  call.model = request.model;
  call.user = request.user;
  call.stream = request.stream;
  const refuse = (error: unknown): never => {
    throw error instanceof GatewayError ? dialect.explain(error) : error;
  };
  if (request.stream) {
    const stream = new EventStream(reply, call, streamOptions);
    const produced = engine.stream(request, call, stream.begin(dialect.encoder(call, stream)));
    return stream.follow(produced).catch(refuse);
  }
  return engine.complete(request, call).then((result) => {
    sendJson(reply, call, JSON.stringify(dialect.encodeResult(result, call)), streamOptions.stallMs);
  }, refuse);
}

/** @param stallMs see `cutOffWhenStalled` */
export function sendJson(reply: FastifyReply, call: Call, body: string, stallMs?: number): void {
  const bytes = Buffer.byteLength(body);
  startResponse(reply, call, true, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': bytes,
  });
  const { raw } = reply;
  const { socket } = raw;
  // Left alone, Node would keep the socket corked till the next tick, and send the empty string that ends a response behind the body:
  // two pieces. Uncorked before the end, head and body leave as one string. The bytes of ASCII are the same in both encodings, and need
  // not be worked out.
  socket?.cork();
  raw.write(body, bytes === body.length ? 'latin1' : 'utf8');
  socket?.uncork();
  raw.end();
  if (raw.writableLength > 0) cutOffWhenStalled(raw, call, stallMs);
}
