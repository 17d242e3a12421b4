/** Documents that are the same for every caller: made once, kept as bytes, sent with a tag. Knows none of them. */
import { createHash } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';

export interface Document {
  readonly type: string;
  readonly bytes: Buffer;
  /** The value of its ETag, quotes included. */
  readonly tag: string;
  /** For how long a browser need not ask again. Seconds; 0 = it asks each time. */
  readonly maxAge: number;
}

const tagOf = (content: string | Buffer): string =>
  `"${createHash('sha256').update(content).digest('base64url').slice(0, 27)}"`;

export function makeDocument(type: string, content: string | Buffer, maxAge = 0): Document {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  return { type, bytes, tag: tagOf(bytes), maxAge };
}

/** Notes the tag in the answer. @returns whether the client has what it stands for: then there is a 304 to send */
function noteTag(request: FastifyRequest, reply: FastifyReply, tag: string, maxAge: number): boolean {
  reply.header('etag', tag).header('cache-control', maxAge > 0 ? `max-age=${maxAge}` : 'no-cache');
  // A proxy that compresses makes the tag a weak one.
  const known = request.headers['if-none-match']?.split(',').map((one) => one.trim().replace(/^W\//, ''));
  if (known?.includes(tag) !== true) return false;
  reply.code(304);
  return true;
}

/** Sends it, or a 304 to who has it. All answers share the bytes, however many a client asks for and does not read. */
export function sendDocument(request: FastifyRequest, reply: FastifyReply, document: Document): FastifyReply {
  const { type, bytes, tag, maxAge } = document;
  return noteTag(request, reply, tag, maxAge) ? reply.send() : reply.type(type).send(bytes);
}

/** The same for a short text that somebody else sends: what is to be sent in its place. */
export const tagText = (request: FastifyRequest, reply: FastifyReply, text: string): string =>
  noteTag(request, reply, tagOf(text), 0) ? '' : text;
