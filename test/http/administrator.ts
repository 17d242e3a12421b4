/** A gateway with AUTH=on in front of a simulated LM Studio, and its administrator: for tests of keys, limits and the admin API. */
import { onTestFinished } from 'vitest';
import { startGateway } from './gateway.ts';
import { type Stage, type StageOptions, startStage } from './stage.ts';

export const adminKey = 'the-administrators-own-key-0001';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: a body that the test knows the shape of
  readonly body: any;
}

export interface Team extends Stage {
  /** Asks as whoever has the key; nobody where it is undefined. */
  ask(
    key: string | undefined,
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Answer>;
  /** Asks as the administrator, under /api/admin. */
  admin(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Answer>;
  /** Changes or removes a row that was read in this version. */
  change(method: 'PATCH' | 'DELETE', path: string, version: number, body?: unknown): Promise<Answer>;
  createKey(
    settings?: Readonly<Record<string, unknown>>,
  ): Promise<{ readonly id: number; readonly key: string }>;
  /** A second server on the same database, until the test ends. */
  another(): Promise<Pick<Team, 'url' | 'ask'>>;
}

const askAt =
  (url: string): Team['ask'] =>
  async (key, method, path, body, headers = {}) => {
    const answer = await fetch(url + path, {
      method,
      headers: {
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.startsWith('application/json') === true;
    return { status: answer.status, headers: answer.headers, body: isJson ? JSON.parse(text) : text };
  };

/** Starts one. Close it, or use `team`. */
export async function startTeam(options: StageOptions = {}): Promise<Team> {
  const environment = { AUTH: 'on', ADMIN_API_KEY: adminKey, ...options.environment };
  const scene = await startStage({ ...options, environment });
  const ask = askAt(scene.url);
  const admin: Team['admin'] = (method, path, body, headers) =>
    ask(adminKey, method, `/api/admin${path}`, body, headers);
  return {
    ...scene,
    ask,
    admin,
    change: (method, path, version, body) => admin(method, path, body, { 'if-match': String(version) }),
    async createKey(settings = {}) {
      const { status, body } = await admin('POST', '/keys', { name: 'somebody', ...settings });
      if (status !== 201) throw new Error(`no key was made: ${body.message}`);
      return { id: body.data.id, key: body.data.key };
    },
    async another() {
      const { url, close } = await startGateway({
        ...environment,
        DATABASE_URL: `sqlite:${scene.file}`,
        LMSTUDIO_BASE_URL: scene.studio.url,
      });
      onTestFinished(() => close());
      return { url, ask: askAt(url) };
    },
  };
}

/** Starts one that ends with the test. */
export async function team(options: StageOptions = {}): Promise<Team> {
  const started = await startTeam(options);
  onTestFinished(() => started.close());
  return started;
}
