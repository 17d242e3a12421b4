/** Questions and answers between the harness and the processes that it starts, over Node's own channel. */
import type { ChildProcess } from 'node:child_process';

interface Question<Request> {
  readonly id: number;
  readonly request: Request;
}

interface Reply<Response> {
  readonly id: number;
  readonly response?: Response;
  readonly error?: string;
}

/** In a started process: answers what the harness asks; ends with it. */
export function serveRequests<Request, Response>(answer: (request: Request) => Promise<Response>): void {
  const send = (reply: Reply<Response> | 'ready'): void => {
    process.send?.(reply);
  };
  process.on('message', ({ id, request }: Question<Request>) => {
    answer(request).then(
      (response) => send({ id, response }),
      (error) => send({ id, error: String(error) }),
    );
  });
  process.on('disconnect', () => process.exit());
  send('ready');
}

export type Ask<Request, Response> = (request: Request) => Promise<Response>;

/** In the harness: resolves when the process is ready to be asked. Rejects where it ends before that. */
export function connectTo<Request, Response>(child: ChildProcess): Promise<Ask<Request, Response>> {
  const waiting = new Map<number, { resolve(value: Response): void; reject(error: Error): void }>();
  let lastId = 0;
  const ask: Ask<Request, Response> = (request) =>
    new Promise((resolve, reject) => {
      lastId += 1;
      waiting.set(lastId, { resolve, reject });
      child.send({ id: lastId, request } satisfies Question<Request>);
    });
  return new Promise((resolve, reject) => {
    child.on('message', (message: unknown) => {
      if (message === 'ready') return resolve(ask);
      const { id, response, error } = message as Reply<Response>;
      const asked = waiting.get(id);
      waiting.delete(id);
      if (error !== undefined) asked?.reject(new Error(error));
      else asked?.resolve(response as Response);
    });
    child.once('exit', (code) => {
      const error = new Error(`a process of the benchmark ended with code ${code}`);
      reject(error);
      for (const asked of waiting.values()) asked.reject(error);
    });
  });
}
