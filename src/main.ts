/** The process: configuration, database, application, listening and the orderly end. */
import { existsSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import closeWithGrace from 'close-with-grace';
import { type DestinationStream, type Logger, pino } from 'pino';
import { prettyFactory } from 'pino-pretty';
import { providerKinds } from './adapters/index.ts';
import { syncEnvironmentProviders } from './admin/environment.ts';
import { type App, buildApp } from './app.ts';
import { cleanLogLine, withoutControls } from './chat/controls.ts';
import { type Config, ConfigError, loadConfig, loadDotEnv } from './config.ts';
import { Admission } from './gateway/admission.ts';
import { Allowances } from './gateway/allowances.ts';
import { Breakers } from './gateway/breaker.ts';
import { callLines } from './gateway/call-log.ts';
import { Catalog } from './gateway/catalog.ts';
import { Discovery } from './gateway/discovery.ts';
import { Engine } from './gateway/engine.ts';
import { callerIdOf, KeyRing } from './gateway/keys.ts';
import { Meter } from './gateway/meter.ts';
import { Metrics } from './gateway/metrics.ts';
import { type EndedCall, joinObservers } from './gateway/observer.ts';
import type { Candidate } from './gateway/routing.ts';
import { StoredChats } from './gateway/stored-chats.ts';
import { startTraces } from './gateway/traces.ts';
import type { LiveCalls } from './http/plugins/calls.ts';
import { LogOutput, stdoutDescriptor } from './log-output.ts';
import { openStore, StoreError } from './store/database.ts';
import { readTokensOfToday } from './store/keys.ts';
import { UsageWriter } from './store/usage.ts';
import { UpstreamClient } from './upstream/client.ts';

/** Something that the operator can mend, told in one line; the process ends with exit code 1. */
export class StartError extends Error {}

export interface RunningServer {
  /** e.g. `http://127.0.0.1:8000` */
  readonly address: string;
  /** @param cause the error that forces the end, where nobody asked for it: it is logged */
  close(cause?: Error): Promise<void>;
}

/** Longest that listening waits for the first discovery. Milliseconds. */
const discoveryWaitMs = 3000;

let output: LogOutput | undefined;

/** One for the whole process. What it holds is written at exit, also after a crash. */
function standardOutput(): LogOutput {
  if (output === undefined) {
    const opened = new LogOutput(stdoutDescriptor());
    process.on('exit', () => opened.end());
    output = opened;
  }
  return output;
}

/** For people. What upstreams and callers named is shown, and commands nothing. */
function terminalLines(shown: LogOutput): DestinationStream {
  const format = prettyFactory({ translateTime: 'SYS:HH:MM:ss.l', ignore: 'pid,hostname' });
  return {
    write(lines) {
      for (const line of lines.split('\n')) if (line !== '') shown.write(format(cleanLogLine(line)));
    },
  };
}

interface Logging {
  readonly log: Logger;
  /** Takes lines that are made already. */
  readonly lines: DestinationStream;
  readonly output: LogOutput;
}

function createLogger(config: Config): Logging {
  const options = {
    level: config.logLevel,
    base: undefined,
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  const shown = standardOutput();
  const lines = process.stdout.isTTY === true ? terminalLines(shown) : shown;
  return { log: pino(options, lines), lines, output: shown };
}

async function listen(config: Config, app: App): Promise<string> {
  try {
    // Node's default backlog of 511 loses connections when a thousand clients come at once.
    await app.http.listen({ host: config.host, port: config.port, backlog: 4096 });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'EADDRINUSE') {
      throw new StartError(`port ${config.port} on ${config.host} is taken; set PORT or stop what uses it`);
    }
    if (code === 'EACCES' || code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
      throw new StartError(`cannot listen on ${config.host}:${config.port} (${String(code)})`);
    }
    throw error;
  }
  const { port, family, address } = app.http.server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

/**
 * Starts the gateway. Resolves when it listens.
 * @param environment the process's own if left out
 * @throws ConfigError, StoreError, StartError: each one line for the operator
 */
export async function serve(
  environment?: Readonly<Record<string, string | undefined>>,
): Promise<RunningServer> {
  const config = loadConfig(environment);
  const { log, lines, output: logOutput } = createLogger(config);
  const store = await openStore(config.databasePath);
  const client = new UpstreamClient();
  await syncEnvironmentProviders(store.db, providerKinds, config);
  const catalog = new Catalog({ db: store.db, providerKinds, config, logger: log });
  await catalog.load();
  const keys = new KeyRing(store.db, log);
  await keys.load();
  const allowances = new Allowances(config.rateLimitRpm);
  for (const { id, tokens } of await readTokensOfToday(store.db))
    allowances.restoreDay(callerIdOf(id), tokens);
  const discovery = new Discovery({ catalog, db: store.db, client, config, logger: log });
  const admission = new Admission<Candidate>();
  const breakers = new Breakers(async (provider) => {
    await discovery.refresh(provider);
    return discovery.state(provider).reachability === 'up';
  }, log);
  const storedChats = new StoredChats(store.db, log);
  const meter = new Meter({
    writer: new UsageWriter(() => store.raw),
    follow: () => store.follow(),
    log,
    retentionDays: config.usageRetentionDays,
  });
  const isDatabaseHealthy = (): boolean => catalog.healthy && meter.healthy;
  const metrics = new Metrics({
    catalog,
    discovery,
    admission,
    breakers,
    meter,
    logOutput,
    isDatabaseHealthy,
  });
  const traces =
    config.otlpEndpoint === undefined
      ? undefined
      : await startTraces({ endpoint: config.otlpEndpoint, catalog, log });
  const callLog = {
    callsEnded(ended: readonly EndedCall[]): void {
      if (log.isLevelEnabled('info')) lines.write(callLines(ended));
    },
  };
  const observer = joinObservers([
    allowances,
    meter,
    metrics,
    callLog,
    ...(traces === undefined ? [] : [traces]),
  ]);
  const engine = new Engine({
    breakers,
    storedChats,
    observer,
    catalog,
    discovery,
    client,
    admission,
    config,
    log,
  });
  let draining = false;
  const app = await buildApp({
    config,
    catalog,
    discovery,
    engine,
    keys,
    allowances,
    administration: { db: store.db, providerKinds, catalog, discovery, client, config },
    log,
    isDraining: () => draining,
    isDatabaseHealthy,
    metrics,
    observer,
  });
  const release = async (): Promise<void> => {
    breakers.close();
    await storedChats.close();
    await discovery.close();
    catalog.close();
    keys.close();
    await client.close();
    await meter.close();
    await traces?.close();
    await store.close();
  };
  try {
    catalog.watch();
    keys.watch(() => stopRevoked(app.calls, keys));
    store.onReplaced(() => {
      catalog.forgetVersion();
      keys.forgetVersion();
    });
    storedChats.start();
    meter.start();
    catalog.onChange(() => admission.recheck());
    discovery.onAnswer(() => admission.recheck());
    const first = discovery.start();
    await Promise.race([first, new Promise((resolve) => setTimeout(resolve, discoveryWaitMs).unref())]);
    const address = await listen(config, app);
    log.info(
      {
        address,
        docs: `${address}/docs`,
        auth: config.auth ? 'on' : 'off',
        database: config.databasePath,
        models: catalog.list(0).length,
        providers: Object.fromEntries(
          catalog
            .providers()
            .filter((provider) => provider.enabled)
            .map((provider) => [
              provider.key,
              provider.apiKeyEnvRefused
                ? `no key, PROVIDER_KEY_ENV does not name ${provider.apiKeyEnv}`
                : provider.missingCredential
                  ? `no key, set ${provider.apiKeyEnv ?? 'its key'}`
                  : discovery.state(provider.key).reachability,
            ]),
        ),
      },
      `listening on ${address}`,
    );
    return {
      address,
      async close(cause) {
        if (cause !== undefined) log.fatal({ err: cause }, 'an error that nobody caught ends the process');
        draining = true;
        admission.close();
        await drain(app, config.shutdownGraceMs);
        await release();
      },
    };
  } catch (error) {
    await app.http.close();
    await release();
    throw error;
  }
}

/** Ends the running and queued calls whose keys are good no more. */
function stopRevoked(calls: LiveCalls, keys: KeyRing): void {
  for (const call of calls) {
    const { keyId } = call.caller;
    if (keyId !== undefined && !keys.isGood(keyId)) call.stop('revoked');
  }
}

/** A last chunk gets this long to reach its client. Milliseconds. */
const lastWordsMs = 300;

/**
 * Lets running answers finish while new requests are told to go elsewhere; at the deadline ends what is left with its own last
 * words; then closes every connection.
 */
async function drain({ http, calls }: App, graceMs: number): Promise<void> {
  const deadline = new AbortController();
  await Promise.race([
    calls.settled(),
    sleep(graceMs, undefined, { signal: deadline.signal }).catch(() => {}),
  ]);
  deadline.abort();
  for (const call of calls) call.stop('shutdown');
  // A connection that turns idle after close() began would be kept for its whole keep-alive time.
  const idle = setInterval(() => http.server.closeIdleConnections(), 50);
  const cut = setTimeout(() => http.server.closeAllConnections(), lastWordsMs);
  try {
    await http.close();
    // What the last calls came to is told at the end of a turn, and connections close without waiting for one.
    await Promise.race([calls.settled(), sleep(lastWordsMs, undefined, { ref: false })]);
  } finally {
    clearInterval(idle);
    clearTimeout(cut);
  }
}

/** Runs the server until a signal ends it: exit code 0 after an orderly end, 1 where it could not start or an error was not caught. */
export async function main(): Promise<void> {
  let uninstall: (() => void) | undefined;
  try {
    loadDotEnv();
    const starting = serve();
    // From now on, since a first process of a container ignores the signals that it does not listen to.
    ({ uninstall } = closeWithGrace({ delay: false }, async ({ err }) => (await starting).close(err)));
    await starting;
  } catch (error) {
    uninstall?.();
    if (!(error instanceof ConfigError || error instanceof StoreError || error instanceof StartError))
      throw error;
    process.stderr.write(`${withoutControls(error.message)}\n`);
    process.exitCode = 1;
  }
}

const started = process.argv[1];
if (
  started !== undefined &&
  existsSync(started) &&
  path.resolve(started) === fileURLToPath(import.meta.url)
) {
  await main();
}
