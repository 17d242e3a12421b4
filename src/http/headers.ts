/** The heads of answered calls. */
import type { OutgoingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyReply } from 'fastify';
import type { Call, Quota } from '../gateway/call.ts';
import { nameList } from '../gateway/name-list.ts';

declare module 'node:http' {
  interface ServerResponse {
    /**
     * What `writeHead` ends in: takes lines as they are, and headers that it checks line by line. Node's documentation does not
     * have it, its source does since 2011: https://github.com/nodejs/node/blob/v20.19.0/lib/_http_outgoing.js#L409
     */
    _storeHeader(lines: string, headers: OutgoingHttpHeaders): void;
  }
}

const plain = /^[\x20-\x7e]*$/;

/** Node refuses header values beyond Latin-1; model names may be in any script. */
function headerSafe(value: string): string {
  if (plain.test(value)) return value;
  return value.toWellFormed().replace(/[^\x20-\x7e]/gu, (character) => encodeURIComponent(character));
}

/** Who answers, as lines of a head. All values are printable ASCII. @param answered whether the answering route is known */
function routeLines(call: Call, answered: boolean): string {
  const asked = `x-gateway-requested-model: ${headerSafe(call.model)}\r\n`;
  if (!answered || call.provider === undefined) return asked;
  const model = headerSafe(call.upstreamModel ?? '');
  const ignored = call.ignored.length === 0 ? '' : `x-gateway-ignored: ${nameList(call.ignored)}\r\n`;
  return `${asked}x-gateway-provider: ${call.provider}\r\nx-gateway-model: ${model}\r\nx-gateway-attempts: ${call.attempts}\r\n${ignored}`;
}

/** A time as OpenAI writes it: `6s`, `1m0s`, `2h5m0s`. */
export function formatReset(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  return `${hours > 0 ? `${hours}h` : ''}${seconds >= 60 ? `${minutes}m` : ''}${seconds % 60}s`;
}

const quotaLines = (what: 'requests' | 'tokens', { limit, remaining, resetMs }: Quota): string =>
  `x-ratelimit-limit-${what}: ${limit}\r\nx-ratelimit-remaining-${what}: ${remaining}\r\nx-ratelimit-reset-${what}: ${formatReset(resetMs)}\r\n`;

/** How the caller stands with its limits, as lines of a head; empty where it has none. */
function standingLines({ quotas }: Call): string {
  if (quotas === undefined) return '';
  const { requests, tokens } = quotas;
  return (
    (requests === undefined ? '' : quotaLines('requests', requests)) +
    (tokens === undefined ? '' : quotaLines('tokens', tokens))
  );
}

/** What tells of a call in an answer that Fastify sends. @param answered whether it is no refusal */
export function callHeaders(call: Call, answered: boolean): Record<string, string> {
  const lines = (answered ? routeLines(call, true) : '') + standingLines(call);
  return Object.fromEntries(
    lines
      .split('\r\n')
      .slice(0, -1)
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
  );
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
  const lines = `HTTP/1.1 200 OK\r\n${routeLines(call, answered)}${standingLines(call)}`;
  // Not `writeHead`, which checks every name and value again: of an answer with all its lines that took 4 us.
  reply.raw._storeHeader(lines, Object.assign(reply.getHeaders(), headers));
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
