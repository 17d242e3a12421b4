/** The heads of answered calls. */
import type { OutgoingHttpHeaders } from 'node:http';
import type { FastifyReply } from 'fastify';
import type { Call } from '../gateway/call.ts';

/** Node refuses header values beyond Latin-1; model names may be in any script. */
function headerSafe(value: string): string {
  return value.toWellFormed().replace(/[^\x20-\x7e]/gu, (character) => encodeURIComponent(character));
}

/**
 * Sends a 200 with these headers and those that hooks have set. Fastify's own reply ends here: what follows is written to
 * `reply.raw`, as it is made.
 */
export function startResponse(reply: FastifyReply, headers: OutgoingHttpHeaders): void {
  reply.hijack();
  const all: OutgoingHttpHeaders = {};
  reply.raw.writeHead(200, Object.assign(all, reply.getHeaders(), headers));
}

/** The headers that tell who answered. @param answered whether the route that answers is known, and not only the title that was asked for */
export function routeHeaders(call: Call, answered: boolean): Record<string, string> {
  return {
    'x-gateway-requested-model': headerSafe(call.model),
    ...(answered && call.provider !== undefined
      ? {
          'x-gateway-provider': call.provider,
          'x-gateway-model': headerSafe(call.upstreamModel ?? ''),
          'x-gateway-attempts': String(call.attempts),
        }
      : {}),
  };
}
