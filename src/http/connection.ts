/** What a connection is about: how many requests of it are answered at once, and what answers one that is no HTTP. Knows no route. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Hold } from '../gateway/call.ts';
import { newRequestId } from './request-id.ts';

/** A client that was told why gets this long to close its side, too. Milliseconds. */
const lingerMs = 1000;

/** Requests of one connection that are worked on at once. */
const mostAtOnce = 16;

/** What is still to be answered, in the order in which it came. */
type Responses = ServerResponse<IncomingMessage>[];

/** Where a connection has what it is about; a client may send requests faster than it reads answers. */
const responses = Symbol('responses');
/** The requests of a connection that have to wait until those before them are answered: the last of its `responses`. */
const waiting = Symbol('waiting');
const doomed = new WeakSet<Socket>();

/**
 * Where a response has whom to tell once it is over, however it ended. `close` is the one event that comes for every ending:
 * Fastify's onResponse is silent when the client leaves, and the request's own comes as soon as its body was read.
 */
export const onClose = Symbol('onClose');

/** Where a request has what its body holds until its response is over. */
export const bodyHold = Symbol('body');

declare module 'node:http' {
  interface IncomingMessage {
    [bodyHold]?: Hold;
  }
  interface ServerResponse {
    [onClose]?: (response: ServerResponse) => void;
  }
}

declare module 'node:net' {
  interface Socket {
    [responses]?: Responses;
    [waiting]?: (() => void)[];
  }
}

/** What the requests on a new connection will be. */
function watchConnection(socket: Socket): Responses {
  const open: Responses = [];
  socket[responses] = open;
  // Node tells its end only to the response that is being sent, not to those that wait behind it for their turn.
  socket.once('close', () => {
    socket[waiting] = undefined;
    for (const response of [...open]) response.destroy().emit('close');
  });
  return open;
}

/**
 * Keeps in mind what each connection is about, so that nothing is ever written into the middle of an answer, and that
 * every response emits `close`, also one behind which the client left before it was its turn. To be told of each response
 * before anything is made of its request; a listener of the server would miss those of a second address of the same name.
 */
export function trackExchange(response: ServerResponse<IncomingMessage>): void {
  const { socket } = response.req;
  const open = socket[responses] ?? watchConnection(socket);
  open.push(response);
  response.on('close', forget);
}

/**
 * Goes on with a request that was just tracked, as soon as few enough of its connection's are being answered: at once, mostly.
 * While one waits nothing is read from the connection. What one read of a socket brought can be two thousand requests, though, and
 * those of a client that has left are dropped.
 */
export function whenItsTurn(response: ServerResponse<IncomingMessage>, proceed: () => void): void {
  const { socket } = response.req;
  const open = socket[responses]?.length ?? 0;
  if (open <= mostAtOnce) {
    proceed();
    return;
  }
  let queue = socket[waiting];
  if (queue === undefined) {
    queue = socket[waiting] = [];
    socket.on('resume', stayPaused);
  }
  queue.push(proceed);
  socket.pause();
}

/** Node reads on by itself, as soon as the body of a request was read, or an answer was taken. */
function stayPaused(this: Socket): void {
  if (this[waiting] !== undefined) this.pause();
}

function takeNext(socket: Socket, open: number): void {
  const queue = socket[waiting];
  if (queue === undefined || open - queue.length >= mostAtOnce) return;
  const proceed = queue.shift();
  if (queue.length === 0) {
    socket[waiting] = undefined;
    socket.removeListener('resume', stayPaused);
    socket.resume();
  }
  proceed?.();
}

/** Shared by all responses, and for all purposes: a listener and a closure for each would cost every request 2 us. */
function forget(this: ServerResponse<IncomingMessage>): void {
  const { socket } = this.req;
  const open = socket[responses];
  const at = open?.indexOf(this) ?? -1;
  if (open === undefined || at < 0) return;
  open.splice(at, 1);
  if (doomed.has(socket) && !hasGood(open)) endSoon(socket);
  this.req[bodyHold]?.release();
  this[onClose]?.(this);
  takeNext(socket, open.length);
}

/** Whether a request that came whole is still being answered. */
const hasGood = (open: Responses): boolean => open.some(({ req }) => req.complete);

function endSoon(socket: Socket, lastWords = ''): void {
  socket.end(lastWords);
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

/**
 * 431 for headers beyond Node's 16 KiB, 408 for a request that came too slowly, else 400; then the connection is closed. Behind
 * good requests on the same connection nothing is said: it is closed when those are answered.
 */
export function answerMalformed(error: Error & { readonly code?: string }, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const open: Responses = socket[responses] ?? [];
  if (hasGood(open)) {
    doomed.add(socket);
    return;
  }
  if (open.some(({ headersSent }) => headersSent)) {
    endSoon(socket);
    return;
  }
  const [status, reason, message] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ([431, 'Request Header Fields Too Large', '请求头过大'] as const)
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ([408, 'Request Timeout', '请求超时'] as const)
        : ([400, 'Bad Request', '参数值超出有效范围:不是有效的 HTTP 请求'] as const);
  const body = JSON.stringify({ code: status, message, data: null });
  endSoon(
    socket,
    `HTTP/1.1 ${status} ${reason}\r\nx-request-id: ${newRequestId()}\r\nx-error-code: INVALID_PARAMS\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}
