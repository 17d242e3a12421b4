/**
 * OpenTelemetry spans: one per call and one per try, named after the conventions for generative AI; never a prompt or an answer.
 * Its libraries are loaded only when traces are asked for. https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
 */
import type { Attributes, Context, Span, SpanContext, Tracer } from '@opentelemetry/api';
import type { TracerProvider } from '@opentelemetry/sdk-trace';
import type { Logger } from 'pino';
import { type Call, type Endpoint, shortName, type Try } from './call.ts';
import type { Catalog } from './catalog.ts';
import type { EndedCall, Observer } from './observer.ts';

export interface TraceOptions {
  /** Base URL of an OTLP/HTTP receiver; `/v1/traces` is appended. */
  readonly endpoint: string;
  readonly catalog: Pick<Catalog, 'find'>;
  readonly log: Logger;
}

type OpenTelemetry = typeof import('@opentelemetry/api');

const operations: Readonly<Record<Endpoint, string>> = {
  '/api/llm/chat': 'chat',
  '/v1/chat/completions': 'chat',
  '/api/llm/completions': 'text_completion',
  '/v1/completions': 'text_completion',
  '/api/llm/embeddings': 'embeddings',
  '/v1/embeddings': 'embeddings',
};

/** Endings that are an answer; all others are errors by name. */
const answered: ReadonlySet<string> = new Set(['stop', 'length', 'tool_calls', 'content_filter']);

/** The last spans get this long to reach the receiver when the process ends. Milliseconds. */
const lastExportMs = 2000;

/** https://www.w3.org/TR/trace-context/#traceparent-header */
const traceparentPattern = /^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/;

const first = (value: string | string[] | undefined): string =>
  (Array.isArray(value) ? value[0] : value) ?? '';

/** Loads OpenTelemetry and begins to export. */
export async function startTraces(options: TraceOptions): Promise<Traces> {
  const [api, sdk, { resourceFromAttributes }, { OTLPTraceExporter }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/exporter-trace-otlp-http'),
  ]);
  // Errors come as JSON with a stack.
  const warn = (words: string): void =>
    options.log.warn({ cause: /"message":"([^"]*)"/.exec(words)?.[1] ?? words }, 'traces are not exported');
  const quiet = (): void => {};
  api.diag.setLogger(
    { error: warn, warn, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: api.DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const exporter = new OTLPTraceExporter({ url: `${options.endpoint.replace(/\/+$/, '')}/v1/traces` });
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'llm-gateway' }),
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter })],
  });
  return new Traces(api, provider, options.catalog);
}

class Traces implements Observer {
  readonly #api: OpenTelemetry;
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #catalog: Pick<Catalog, 'find'>;
  readonly #calls = new WeakMap<Call, { readonly span: Span; readonly context: Context }>();
  readonly #tries = new WeakMap<Try, Span>();

  constructor(api: OpenTelemetry, provider: TracerProvider, catalog: Pick<Catalog, 'find'>) {
    this.#api = api;
    this.#provider = provider;
    this.#tracer = provider.getTracer('llm-gateway');
    this.#catalog = catalog;
  }

  callStarted(call: Call, headers: Readonly<Record<string, string | string[] | undefined>>): void {
    const { ROOT_CONTEXT, SpanKind, trace } = this.#api;
    const parent = this.#parentOf(first(headers['traceparent']), first(headers['tracestate']));
    const outer = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
    const span = this.#tracer.startSpan(
      operations[call.endpoint],
      { kind: SpanKind.SERVER, startTime: call.startedAt },
      outer,
    );
    this.#calls.set(call, { span, context: trace.setSpan(outer, span) });
  }

  tryStarted(call: Call, tried: Try): void {
    const known = this.#calls.get(call);
    if (known === undefined) return;
    const operation = operations[call.endpoint];
    const span = this.#tracer.startSpan(
      `${operation} ${tried.upstreamModel}`,
      {
        kind: this.#api.SpanKind.CLIENT,
        startTime: call.startedAt + tried.startedMs,
        attributes: {
          'gen_ai.operation.name': operation,
          'gen_ai.provider.name': tried.provider,
          'gen_ai.request.model': tried.upstreamModel,
          'gateway.try': call.attempts,
        },
      },
      known.context,
    );
    this.#tries.set(tried, span);
    call.upstreamHeaders = traceHeaders(span.spanContext());
  }

  tryEnded(call: Call, tried: Try): void {
    const span = this.#tries.get(tried);
    if (span === undefined || !span.isRecording()) return;
    if (tried.upstreamStatus !== undefined) {
      span.setAttribute('http.response.status_code', tried.upstreamStatus);
    }
    // What a try fails with once its call was stopped is only the stop's own doing.
    const errorType = call.stopped ? call.ending : tried.error?.code;
    if (errorType !== undefined) {
      span.setAttribute('error.type', errorType);
      span.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    }
    span.end(call.startedAt + (tried.endedMs ?? call.elapsedMs));
  }

  callsEnded(ended: readonly EndedCall[]): void {
    for (const { call, status } of ended) this.#end(call, status);
  }

  #end(call: Call, status: number): void {
    const span = this.#calls.get(call)?.span;
    if (span === undefined) return;
    // A try that was left by the client has not noticed yet.
    for (const tried of call.tries) this.tryEnded(call, tried);
    const operation = operations[call.endpoint];
    // Names group spans: what clients make up must not become one.
    if (this.#catalog.find(call.model) !== undefined) span.updateName(`${operation} ${call.model}`);
    span.setAttributes(attributesOf(call, status, operation));
    const ending = call.ending ?? 'error';
    if (!answered.has(ending)) {
      span.setAttribute('error.type', call.error?.code ?? ending);
      // By the HTTP conventions a server is not to blame for what it refused with a 4xx.
      if (ending !== 'rejected' || status >= 500) span.setStatus({ code: this.#api.SpanStatusCode.ERROR });
    }
    span.end(call.startedAt + call.elapsedMs);
  }

  /** Exports what is left, for at most 2 s. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, lastExportMs);
    });
    // A receiver that is away was told by the log already.
    await Promise.race([this.#provider.shutdown().catch(() => {}), limit]);
    clearTimeout(timer);
  }

  #parentOf(traceparent: string, tracestate: string): SpanContext | undefined {
    const [, traceId, spanId, flags] = traceparentPattern.exec(traceparent) ?? [];
    if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
    const parent: SpanContext = {
      traceId,
      spanId,
      traceFlags: Number.parseInt(flags, 16),
      isRemote: true,
      ...(tracestate === '' ? {} : { traceState: this.#api.createTraceState(tracestate) }),
    };
    return this.#api.isSpanContextValid(parent) ? parent : undefined;
  }
}

function traceHeaders({ traceId, spanId, traceFlags, traceState }: SpanContext): Record<string, string> {
  const tracestate = traceState?.serialize() ?? '';
  return {
    traceparent: `00-${traceId}-${spanId}-${(traceFlags & 1).toString(16).padStart(2, '0')}`,
    ...(tracestate === '' ? {} : { tracestate }),
  };
}

function attributesOf(call: Call, status: number, operation: string): Attributes {
  const { usage, firstTokenMs, ending } = call;
  return {
    'gen_ai.operation.name': operation,
    'gen_ai.request.model': shortName(call.model),
    ...(call.provider === undefined ? {} : { 'gen_ai.provider.name': call.provider }),
    ...(call.upstreamModel === undefined ? {} : { 'gen_ai.response.model': shortName(call.upstreamModel) }),
    ...(usage === null
      ? {}
      : {
          'gen_ai.usage.input_tokens': usage.input_tokens,
          'gen_ai.usage.output_tokens': usage.output_tokens,
        }),
    ...(ending !== undefined && answered.has(ending) ? { 'gen_ai.response.finish_reasons': [ending] } : {}),
    ...(firstTokenMs === undefined ? {} : { 'gen_ai.response.time_to_first_chunk': firstTokenMs / 1000 }),
    'http.route': call.endpoint,
    'http.response.status_code': status,
    'gateway.request_id': call.requestId,
    'gateway.ending': ending ?? 'error',
    'gateway.stream': call.stream,
    'gateway.attempts': call.attempts,
    'gateway.queued_ms': Math.round(call.queuedMs),
    ...(call.caller.keyPrefix === undefined ? {} : { 'gateway.key': call.caller.keyPrefix }),
  };
}
