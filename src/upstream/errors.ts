/** What can go wrong between the gateway and an upstream's socket, before any protocol is read. */

/**
 * `connect`: no connection, nothing was sent. `connect-timeout`: none within our limit. `cut`: the connection ended early.
 * `timeout`: another of our limits ran out.
 * `too-large`: the body exceeds what is read. `undecodable`: it is compressed in a way that nobody here knows, or badly.
 * `aborted`: we ended it ourselves.
 */
export type TransportFailure =
  | 'connect'
  | 'connect-timeout'
  | 'cut'
  | 'timeout'
  | 'too-large'
  | 'undecodable'
  | 'aborted';

export class TransportError extends Error {
  readonly kind: TransportFailure;
  /** Whether the request was written to a connection, so that the upstream may have acted on it. */
  readonly sent: boolean;

  constructor(kind: TransportFailure, sent: boolean, cause?: unknown) {
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : '';
    super(`${kind}${code}`, { cause });
    this.name = 'TransportError';
    this.kind = kind;
    this.sent = sent;
  }
}
