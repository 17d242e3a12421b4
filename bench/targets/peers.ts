/** Other people's gateways, measured only when asked for by name. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, root, startProcess, stopProcess, until } from '../processes.ts';
import { speaksHttp } from './baselines.ts';
import { type Target, upstreamPath } from './target.ts';

function nginxConfiguration(port: number, upstreamPort: number): string {
  return `daemon off; worker_processes 1; pid nginx.pid; error_log error.log warn; worker_rlimit_nofile 20000;
events { worker_connections 19000; }
http {
  access_log off; keepalive_timeout 300s; keepalive_requests 100000000; client_max_body_size 32m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream bench { server 127.0.0.1:${upstreamPort}; keepalive 1024; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 300s;
    }
  }
}
`;
}

/** The practical limit: a proxy in C that parses nothing of the answer. */
const nginx: Target = {
  name: 'nginx',
  optional: true,
  async start({ upstreamPort, core, folder }) {
    if (spawnSync('nginx', ['-v']).status !== 0) throw new Error('nginx is not installed');
    const port = await freePort();
    const home = mkdtempSync(path.join(folder, 'nginx-'));
    writeFileSync(path.join(home, 'nginx.conf'), nginxConfiguration(port, upstreamPort));
    const child = startProcess(core, 'nginx', ['-p', home, '-c', 'nginx.conf'], { stdio: 'inherit' });
    await until('nginx listens', 10, () => speaksHttp(`http://127.0.0.1:${port}/`));
    return {
      pid: child.pid ?? 0,
      endpoint: { port, path: upstreamPath, headers: {} },
      stop: () => stopProcess(child),
    };
  },
};

const portkeyFolder = path.join(root, 'bench/peers/portkey');
const portkeyServer = path.join(portkeyFolder, 'node_modules/@portkey-ai/gateway/build/start-server.js');
const portkeyManifest = {
  private: true,
  dependencies: { '@portkey-ai/gateway': '1.15.2' },
  // Every stream is a 500 ("immutable" headers) with 1.14 to 1.19 of this; the manifest of Portkey asks for ^1.3.3.
  overrides: { '@hono/node-server': '1.3.3' },
};

function installPortkey(): void {
  if (existsSync(portkeyServer)) return;
  mkdirSync(portkeyFolder, { recursive: true });
  // Without a manifest of its own, npm would install into the project.
  writeFileSync(path.join(portkeyFolder, 'package.json'), `${JSON.stringify(portkeyManifest, null, 2)}\n`);
  process.stderr.write('installing @portkey-ai/gateway into bench/peers/portkey\n');
  const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund'], {
    cwd: portkeyFolder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (status !== 0) throw new Error('npm cannot install @portkey-ai/gateway');
}

const portkey: Target = {
  name: 'portkey',
  optional: true,
  async start({ upstreamPort, core, folder }) {
    installPortkey();
    const port = await freePort();
    const log = openSync(path.join(folder, 'portkey.log'), 'a');
    const child = startProcess(core, process.execPath, [portkeyServer, `--port=${port}`, '--headless'], {
      cwd: portkeyFolder,
      stdio: ['ignore', log, log],
      env: { PATH: process.env['PATH'], NODE_ENV: 'production' },
    });
    await until('portkey listens', 20, () => speaksHttp(`http://127.0.0.1:${port}/`));
    return {
      pid: child.pid ?? 0,
      endpoint: {
        port,
        path: '/v1/chat/completions',
        headers: {
          authorization: 'Bearer none',
          'x-portkey-provider': 'openai',
          'x-portkey-custom-host': `http://127.0.0.1:${upstreamPort}/v1`,
        },
      },
      stop: () => stopProcess(child),
    };
  },
};

export const peers: readonly Target[] = [nginx, portkey];
