/** Spans as an OTLP receiver gets them: one per call, one per try, joined to the client's trace and to the upstream's. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { z } from 'zod';
import { faults } from '../simulators/faults.ts';
import { chatModel } from './prepare.ts';
import { spawnGateway } from './spawned.ts';
import { type Stage, type StageOptions, startStage } from './stage.ts';

const value = z.object({
  stringValue: z.string().optional(),
  intValue: z.union([z.number(), z.string()]).optional(),
  doubleValue: z.number().optional(),
  boolValue: z.boolean().optional(),
  arrayValue: z.object({ values: z.array(z.object({ stringValue: z.string() })) }).optional(),
});
const exported = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: z.array(z.object({ key: z.string(), value })) }),
      scopeSpans: z.array(
        z.object({
          spans: z.array(
            z.object({
              traceId: z.string(),
              spanId: z.string(),
              parentSpanId: z.string().optional(),
              name: z.string(),
              kind: z.number(),
              startTimeUnixNano: z.string(),
              endTimeUnixNano: z.string(),
              attributes: z.array(z.object({ key: z.string(), value })),
              status: z.object({ code: z.number().optional() }),
            }),
          ),
        }),
      ),
    }),
  ),
});

interface SpanSeen {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  readonly kind: number;
  readonly error: boolean;
  readonly milliseconds: number;
  readonly attributes: Readonly<Record<string, unknown>>;
}

const plain = (one: z.output<typeof value>): unknown =>
  one.arrayValue?.values.map((item) => item.stringValue) ??
  one.stringValue ??
  one.doubleValue ??
  one.boolValue ??
  (one.intValue === undefined ? undefined : Number(one.intValue));

interface Receiver {
  readonly url: string;
  readonly spans: readonly SpanSeen[];
  /** Everything that came, as text. */
  readonly text: string;
  readonly services: ReadonlySet<unknown>;
}

async function startReceiver(): Promise<Receiver> {
  const spans: SpanSeen[] = [];
  const services = new Set<unknown>();
  let text = '';
  const server = createServer(async (incoming, outgoing) => {
    const body = await json(incoming);
    text += JSON.stringify(body);
    if (incoming.url === '/base/v1/traces') {
      for (const { resource, scopeSpans } of exported.parse(body).resourceSpans) {
        for (const { key, value: one } of resource.attributes) {
          if (key === 'service.name') services.add(plain(one));
        }
        for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
          spans.push({
            traceId: span.traceId,
            spanId: span.spanId,
            parentSpanId: span.parentSpanId,
            name: span.name,
            kind: span.kind,
            error: span.status.code === 2,
            milliseconds: Number(BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano)) / 1e6,
            attributes: Object.fromEntries(span.attributes.map((one) => [one.key, plain(one.value)])),
          });
        }
      }
    }
    outgoing.setHeader('content-type', 'application/json').end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/base/`,
    spans,
    services,
    get text() {
      return text;
    },
  };
}

/** Spans leave in batches; the gateway's end sends the last one. */
async function traced(
  options: StageOptions,
  work: (scene: Stage) => Promise<unknown>,
): Promise<{ readonly receiver: Receiver; readonly calls: SpanSeen[]; readonly tries: SpanSeen[] }> {
  const receiver = await startReceiver();
  const scene = await startStage({
    ...options,
    environment: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, ...options.environment },
  });
  try {
    await work(scene);
  } finally {
    await scene.close();
  }
  return {
    receiver,
    calls: receiver.spans.filter((span) => span.kind === 2),
    tries: receiver.spans.filter((span) => span.kind === 3),
  };
}

const traceId = '0af7651916cd43dd8448eb211c80319c';
const clientSpan = 'b7ad6b7169203331';

describe('traces', () => {
  it('show a call that fell back with its tries and the statuses of their upstreams', async () => {
    let upstreamParent: unknown;
    const { receiver, calls, tries } = await traced(
      {
        studios: [{}, {}],
        routes: [
          { studio: 0, priority: 0 },
          { studio: 1, priority: 1, upstream: 'qwen2-vl-7b-instruct' },
        ],
      },
      async (scene) => {
        scene.studios[0]?.next(faults.status(404));
        await scene.chat(
          { stream: true },
          { traceparent: `00-${traceId}-${clientSpan}-01`, tracestate: 'a=1' },
        ).done;
        upstreamParent = scene.studios[1]?.requests.find((one) => one.generation)?.headers;
      },
    );
    const [call] = calls;
    expect(receiver.services).toEqual(new Set(['llm-gateway']));
    expect(call).toMatchObject({
      traceId,
      parentSpanId: clientSpan,
      name: `chat ${chatModel}`,
      error: false,
      attributes: {
        'gen_ai.operation.name': 'chat',
        'gen_ai.request.model': chatModel,
        'gen_ai.response.model': 'qwen2-vl-7b-instruct',
        'gen_ai.provider.name': 'lmstudio-2',
        'gen_ai.usage.input_tokens': expect.any(Number),
        'gen_ai.usage.output_tokens': expect.any(Number),
        'gen_ai.response.finish_reasons': ['stop'],
        'gen_ai.response.time_to_first_chunk': expect.any(Number),
        'http.response.status_code': 200,
        'gateway.ending': 'stop',
        'gateway.attempts': 2,
      },
    });
    expect(
      tries.map((one) => [
        one.traceId,
        one.parentSpanId,
        one.name,
        one.attributes['gen_ai.provider.name'],
        one.attributes['http.response.status_code'],
        one.attributes['error.type'],
        one.error,
      ]),
    ).toEqual([
      [traceId, call?.spanId, `chat ${chatModel}`, 'lmstudio', 404, 'UPSTREAM_ERROR', true],
      [traceId, call?.spanId, 'chat qwen2-vl-7b-instruct', 'lmstudio-2', 200, undefined, false],
    ]);
    expect(upstreamParent).toMatchObject({
      traceparent: `00-${traceId}-${tries[1]?.spanId}-01`,
      tracestate: 'a=1',
    });
  });

  it('begin a new trace where the client has none, or a broken one', async () => {
    const { calls } = await traced({}, async (scene) => {
      await scene.chat().done;
      await scene.chat({}, { traceparent: `00-${'0'.repeat(32)}-${clientSpan}-01` }).done;
      await scene.chat({}, { traceparent: 'nonsense' }).done;
    });
    expect(calls).toHaveLength(3);
    expect(new Set(calls.map((call) => call.traceId)).size).toBe(3);
    expect(calls.every((call) => call.parentSpanId === undefined)).toBe(true);
  });

  it('are not made for a client that chose not to be sampled', async () => {
    const { receiver } = await traced({}, async (scene) => {
      await scene.chat({}, { traceparent: `00-${traceId}-${clientSpan}-00` }).done;
      const sent = scene.studio.requests.find((one) => one.generation)?.headers;
      expect(sent?.['traceparent']).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
    });
    expect(receiver.spans).toEqual([]);
  });

  it('hold a call that the client left and one that was refused', async () => {
    const { calls, tries } = await traced({}, async (scene) => {
      scene.studio.next(faults.stall('after-text'));
      const answer = scene.chat({ stream: true }, { 'x-request-id': 'gone' });
      await answer.until((body) => body.includes('data: '));
      answer.leave();
      await scene.usageOf('gone');
      await scene.chat({ model: 'made-up-by-a-client' }).done;
    });
    expect(calls.map((call) => [call.name, call.attributes['gateway.ending'], call.error])).toEqual([
      [`chat ${chatModel}`, 'client_gone', true],
      ['chat', 'rejected', false],
    ]);
    expect(tries.map((one) => one.attributes['error.type'])).toEqual(['client_gone']);
  });

  it('hold no word of a prompt or an answer', async () => {
    const { receiver } = await traced({}, async (scene) => {
      scene.studio.next({ text: 'sesame-answer' });
      await scene.chat({ messages: [{ role: 'user', content: 'sesame-prompt' }] }).done;
    });
    expect(receiver.spans).toHaveLength(2);
    expect(receiver.text).not.toContain('sesame');
  });
});

/**
 * At the end of the process, one more log line: the OpenTelemetry modules that it had loaded, without the interfaces (`api`) that
 * prom-client brings.
 */
const reportModules = `import { createRequire } from 'node:module'; import { writeSync } from 'node:fs';
const { cache } = createRequire('/');
process.on('exit', () => writeSync(1, JSON.stringify({ loaded: Object.keys(cache).filter((name) => /@opentelemetry.(?!api.)/.test(name)) }) + '\\n'));`;

async function loadedModules(environment: Readonly<Record<string, string>>): Promise<readonly unknown[]> {
  const preload = `data:text/javascript,${encodeURIComponent(reportModules)}`;
  const gateway = await spawnGateway({ DATABASE_URL: 'sqlite::memory:', ...environment }, [
    '--import',
    preload,
  ]);
  await gateway.end('SIGTERM');
  const loaded = gateway.log.at(-1)?.['loaded'];
  if (!Array.isArray(loaded)) throw new Error('the modules were not reported');
  return loaded;
}

describe('the OpenTelemetry libraries', () => {
  it('are not loaded while traces are off', async () => {
    expect(await loadedModules({})).toEqual([]);
  });

  it('are loaded while traces are on', async () => {
    const receiver = await startReceiver();
    expect(await loadedModules({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url })).toContainEqual(
      expect.stringContaining('@opentelemetry/sdk-trace'),
    );
  });
});
