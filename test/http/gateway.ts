/** A whole gateway on a port of its own over an empty database in memory, for tests that speak HTTP. */
import { serve } from '../../src/main.ts';

export interface RunningGateway {
  /** Without a trailing slash. */
  readonly url: string;
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<Response>;
  /** A body that is not a string is sent as JSON. */
  post(path: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<Response>;
  close(): Promise<void>;
}

/** No provider answers here: the port of the discard service, which nothing serves. */
const nowhere = 'http://127.0.0.1:9';

/** @param environment what differs from a quiet gateway on loopback without any upstream */
export async function startGateway(
  environment: Readonly<Record<string, string | undefined>> = {},
): Promise<RunningGateway> {
  const server = await serve({
    PORT: '0',
    DATABASE_URL: 'sqlite::memory:',
    LOG_LEVEL: 'silent',
    LMSTUDIO_BASE_URL: nowhere,
    BAILIAN_BASE_URL: `${nowhere}/compatible-mode/v1`,
    SHUTDOWN_GRACE_MS: '1000',
    ...environment,
  });
  const url = server.address;
  return {
    url,
    get: (path, headers = {}) => fetch(url + path, { headers }),
    post: (path, body, headers = {}) =>
      fetch(url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    close: () => server.close(),
  };
}

/** A body that the test knows the shape of. */
export const jsonOf = async (answer: Response) => JSON.parse(await answer.text());
