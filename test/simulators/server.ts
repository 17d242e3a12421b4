/** A real HTTP server that remembers what was asked of it and how each call ended. Knows no provider's wire. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export interface RecordedRequest {
  readonly method: string;
  /** Percent-encoding removed, without the query. */
  readonly path: string;
  readonly query: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The JSON of the body; undefined where it is none. */
  readonly body: unknown;
  /** Whether it asks a model for something: what scripts apply to, and what `running` counts. */
  readonly generation: boolean;
  /** performance.now() */
  readonly receivedAt: number;
  /** Resolves when the response is over or its socket closed, whoever did it. */
  readonly closed: Promise<void>;
  /** performance.now() */
  closedAt: number | undefined;
  /** The client closed the connection before the answer had ended. */
  aborted: boolean;
  cutByServer: boolean;
  framesSent: number;
  bytesSent: number;
}

export interface Exchange {
  readonly response: ServerResponse;
  readonly record: RecordedRequest;
  /** Aborts when the response is over or its socket closed, whoever did it. */
  readonly gone: AbortSignal;
}

export type RequestPredicate = (request: RecordedRequest) => boolean;

export interface RecordingServer {
  /** Without a trailing slash. */
  readonly url: string;
  readonly port: number;
  readonly requests: readonly RecordedRequest[];
  /** Generations that are being answered now, and the most there ever were at once. */
  readonly running: number;
  readonly maxRunning: number;
  /** Sockets that clients hold open, idle ones included. */
  openConnections(): number;
  /** The first request that fits, also one that is there already. Any generation, unless told. */
  waitForRequest(predicate?: RequestPredicate): Promise<RecordedRequest>;
  /** The first request that fits and that its client has left. */
  waitForAbort(predicate?: RequestPredicate): Promise<RecordedRequest>;
  /** Forgets the requests of the past, and the most that ran at once. */
  forget(): void;
  /** Closes the port and every connection. */
  stop(): Promise<void>;
  /** Listens on the same port again. */
  restart(): Promise<void>;
}

export interface RecordingServerOptions {
  /** 0 or unset: one that is free. */
  readonly port?: number;
  /** Requests that are remembered; the oldest go first. All if unset. */
  readonly remember?: number;
  isGeneration(method: string, path: string): boolean;
  handle(exchange: Exchange): Promise<void>;
}

interface Waiter {
  readonly predicate: RequestPredicate;
  resolve(request: RecordedRequest): void;
}

/** Listens on 127.0.0.1. */
export async function startRecordingServer(options: RecordingServerOptions): Promise<RecordingServer> {
  let requests: RecordedRequest[] = [];
  let running = 0;
  let maxRunning = 0;
  const remember = options.remember ?? Number.POSITIVE_INFINITY;
  let forgotten = 0;
  const waiters = new Set<Waiter>();
  const sockets = new Set<Socket>();
  const live = new Set<RecordedRequest>();

  const notify = (request: RecordedRequest): void => {
    for (const waiter of waiters) {
      if (!waiter.predicate(request)) continue;
      waiters.delete(waiter);
      waiter.resolve(request);
    }
  };
  const wait = (predicate: RequestPredicate): Promise<RecordedRequest> => {
    const found = requests.find(predicate);
    if (found !== undefined) return Promise.resolve(found);
    return new Promise((resolve) => waiters.add({ predicate, resolve }));
  };

  async function accept(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const leaving = new AbortController();
    const left = new Promise<void>((resolve) => {
      response.once('close', () => {
        leaving.abort(new Error('the connection is closed'));
        resolve();
      });
    });
    const text = await readText(request);
    if (text === undefined) return;
    const record = describe(request, text, left, options.isGeneration);
    const remembered = forgotten;
    requests.push(record);
    if (requests.length > remember) requests.shift();
    live.add(record);
    if (record.generation) {
      running += 1;
      maxRunning = Math.max(maxRunning, running);
    }
    void left.then(() => {
      live.delete(record);
      if (record.generation) running -= 1;
      record.closedAt = performance.now();
      record.aborted = !response.writableFinished && !record.cutByServer;
      // Who waits now does not mean a request of the past that only ends now.
      if (remembered === forgotten) notify(record);
    });
    notify(record);
    await options.handle({ response, record, gone: leaving.signal });
  }

  const server = createServer((request, response) => {
    accept(request, response).catch((error: unknown) => {
      // A mistake of the simulator, not of the client: as loud as it can be without ending the test run.
      console.error(error);
      response.destroy();
    });
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        resolve();
      });
    });
  await listen(options.port ?? 0);
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const { port } = address;

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    get requests() {
      return requests;
    },
    get running() {
      return running;
    },
    get maxRunning() {
      return maxRunning;
    },
    openConnections: () => sockets.size,
    waitForRequest: (predicate = (request) => request.generation) => wait(predicate),
    waitForAbort: (predicate = () => true) => wait((request) => request.aborted && predicate(request)),
    forget() {
      forgotten += 1;
      requests = [];
      maxRunning = running;
    },
    stop() {
      for (const record of live) record.cutByServer = true;
      return new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      });
    },
    restart: () => listen(port),
  };
}

async function readText(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
  } catch {
    return undefined;
  }
  return Buffer.concat(chunks).toString();
}

function describe(
  request: IncomingMessage,
  text: string,
  closed: Promise<void>,
  isGeneration: RecordingServerOptions['isGeneration'],
): RecordedRequest {
  const method = request.method ?? 'GET';
  const [rawPath = '/', query = ''] = (request.url ?? '/').split('?', 2);
  const path = decodePath(rawPath);
  return {
    method,
    path,
    query,
    headers: request.headers,
    text,
    body: parseJson(text),
    generation: isGeneration(method, path),
    receivedAt: performance.now(),
    closed,
    closedAt: undefined,
    aborted: false,
    cutByServer: false,
    framesSent: 0,
    bytesSent: 0,
  };
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch {
    return undefined;
  }
}
