/** The heads of answered calls. */
import type { OutgoingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyReply } from 'fastify';
import type { Call } from '../gateway/call.ts';

const plain = /^[\x20-\x7e]*$/;

/** Node refuses header values beyond Latin-1; model names may be in any script. */
function headerSafe(value: string): string {
  if (plain.test(value)) return value;
  return value.toWellFormed().replace(/[^\x20-\x7e]/gu, (character) => encodeURIComponent(character));
}

/**
 * Sends a 200 with these headers, those that hooks have set, and those that tell who answered. Fastify's own reply ends here: what
 * follows is written to `reply.raw`, as it is made.
 * @param answered whether the route that answers is known, and not only the title that was asked for
 */
export function startResponse(
  reply: FastifyReply,
  call: Call,
  answered: boolean,
  headers: OutgoingHttpHeaders,
): void {
  reply.hijack();
  reply.raw.writeHead(200, Object.assign(reply.getHeaders(), headers, routeHeaders(call, answered)));
}

/**
 * The same for an answer that takes its time. Node keeps the text of the head as long as the response lives. Sent together with
 * the first chunk it stays the tree of forty strings that it was put together from, 1.5 KB a stream; sent by itself it
 * becomes one string. The socket is corked, so that both leave in one write none the less.
 */
export function startStream(
  reply: FastifyReply,
  call: Call,
  answered: boolean,
  headers: OutgoingHttpHeaders,
): void {
  startResponse(reply, call, answered, headers);
  const { socket } = reply.raw;
  socket?.cork();
  reply.raw.flushHeaders();
  if (socket !== null) process.nextTick(uncork, socket);
}

const uncork = (socket: Socket): void => socket.uncork();

/** The headers that tell who answered. @param answered whether the answering route is known */
export function routeHeaders(call: Call, answered: boolean): Record<string, string> {
  const headers: Record<string, string> = { 'x-gateway-requested-model': headerSafe(call.model) };
  if (answered && call.provider !== undefined) {
    headers['x-gateway-provider'] = call.provider;
    headers['x-gateway-model'] = headerSafe(call.upstreamModel ?? '');
    headers['x-gateway-attempts'] = String(call.attempts);
  }
  return headers;
}
