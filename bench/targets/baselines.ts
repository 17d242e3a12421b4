/** What the gateway is compared with on every run: the upstream itself, and a pass-through in bare Node. */
import { freePort, startScript, stopProcess, until } from '../processes.ts';
import { type Target, upstreamPath } from './target.ts';

export const direct: Target = {
  name: 'direct',
  start: async ({ upstreamPort, upstreamPid }) => ({
    pid: upstreamPid,
    endpoint: { port: upstreamPort, path: upstreamPath, headers: {} },
    stop: async () => {},
  }),
};

/** Whether something there speaks HTTP, whatever it says. */
export async function speaksHttp(url: string): Promise<boolean> {
  return fetch(url).then(
    async (answer) => {
      await answer.body?.cancel();
      return true;
    },
    () => false,
  );
}

export const bare: Target = {
  name: 'bare',
  async start({ upstreamPort, core }) {
    const port = await freePort();
    const child = startScript(core, 'bench/targets/bare.process.mjs', {
      PORT: String(port),
      UPSTREAM: `http://127.0.0.1:${upstreamPort}`,
    });
    await until('the bare pass-through listens', 10, () => speaksHttp(`http://127.0.0.1:${port}/`));
    return {
      pid: child.pid ?? 0,
      endpoint: { port, path: upstreamPath, headers: {} },
      stop: () => stopProcess(child),
    };
  },
};
