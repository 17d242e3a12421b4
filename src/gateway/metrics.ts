/** What /metrics tells: calls as they end, and the gateway's state at the time of asking. Labels are the catalog's, never a client's. */
import { collectDefaultMetrics, Gauge, Counter as PrometheusCounter, Registry } from 'prom-client';
import type { Admission } from './admission.ts';
import type { BreakerState } from './breaker.ts';
import type { Call, Ending } from './call.ts';
import type { Catalog } from './catalog.ts';
import type { Discovery } from './discovery.ts';
import type { Meter } from './meter.ts';
import type { EndedCall, Observer } from './observer.ts';
import type { Candidate } from './routing.ts';
import { Counter, type CounterSeries, Histogram, type HistogramSeries } from './series.ts';

export interface MetricsDependencies {
  readonly catalog: Catalog;
  readonly discovery: Discovery;
  readonly admission: Pick<Admission<Candidate>, 'queued'>;
  readonly breakers: { state(provider: string): BreakerState };
  readonly meter: Pick<Meter, 'buffered' | 'dropped'>;
  readonly logOutput: { readonly dropped: number };
  readonly isDatabaseHealthy: () => boolean;
}

// Buckets: OpenTelemetry's semantic conventions for generative AI metrics.
// https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
const durationBounds = [
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
const firstTokenBounds = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];
const perTokenBounds = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
const tokenBounds = Array.from({ length: 14 }, (_, power) => 4 ** power);
const overheadBounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];
const waitBounds = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

const breakerNumbers: Readonly<Record<BreakerState, number>> = { closed: 0, 'half-open': 1, open: 2 };

/** Stands for a model that the catalog does not have, and for calls that reached no provider. */
const unknownModel = 'unknown';
const noProvider = 'none';

/** All series that the calls of one endpoint, model and provider add to. */
interface CallSeries {
  readonly duration: HistogramSeries;
  readonly firstToken: HistogramSeries;
  readonly perToken: HistogramSeries;
  readonly inputTokens: HistogramSeries;
  readonly outputTokens: HistogramSeries;
  readonly overhead: HistogramSeries;
  readonly queueWait: HistogramSeries;
  readonly endings: Map<Ending, CounterSeries>;
}

export class Metrics implements Partial<Observer> {
  readonly #deps: MetricsDependencies;
  readonly #registry = new Registry();
  readonly #series = new Map<string, CallSeries>();
  #inFlight = 0;

  readonly #duration = new Histogram(
    'gen_ai_server_request_duration_seconds',
    'From the arrival of a request to the end of its response.',
    durationBounds,
  );
  readonly #firstToken = new Histogram(
    'gen_ai_server_time_to_first_token_seconds',
    'From the arrival of a request to the first text, reasoning or tool call; streamed calls only.',
    firstTokenBounds,
  );
  readonly #perToken = new Histogram(
    'gen_ai_server_time_per_output_token_seconds',
    'Time per output token after the first; streamed calls whose tokens are known.',
    perTokenBounds,
  );
  readonly #tokens = new Histogram(
    'gen_ai_client_token_usage',
    'Tokens of a call as its upstream reported them, by type.',
    tokenBounds,
  );
  readonly #overhead = new Histogram(
    'gateway_overhead_seconds',
    'Our own share of a request: all but its tries, the waits between them and the queue.',
    overheadBounds,
  );
  readonly #queueWait = new Histogram(
    'gateway_queue_wait_seconds',
    'Waiting for a free slot, of calls that came so far; 0 for those that found one.',
    waitBounds,
  );
  readonly #requests = new Counter('gateway_requests_total', 'Calls by the one way in which each ended.');
  readonly #retries = new Counter(
    'gateway_retries_total',
    'Tries that repeated the one before on the same route.',
  );
  readonly #fallbacks = new Counter(
    'gateway_fallbacks_total',
    'Tries on another route than the one before, by the provider that was given up.',
  );

  constructor(deps: MetricsDependencies) {
    this.#deps = deps;
    collectDefaultMetrics({ register: this.#registry });
    this.#registerGauges();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Everything, in the Prometheus text format. */
  async text(): Promise<string> {
    const state = await this.#registry.metrics();
    const calls = [
      this.#requests,
      this.#duration,
      this.#firstToken,
      this.#perToken,
      this.#tokens,
      this.#overhead,
      this.#queueWait,
      this.#retries,
      this.#fallbacks,
    ];
    return `${state}\n${calls.map((metric) => metric.text()).join('\n')}`;
  }

  callStarted(): void {
    this.#inFlight += 1;
  }

  callsEnded(ended: readonly EndedCall[]): void {
    for (const { call } of ended) this.#count(call);
  }

  #count(call: Call): void {
    this.#inFlight -= 1;
    const model = this.#deps.catalog.find(call.model) === undefined ? unknownModel : call.model;
    const series = this.#seriesOf(call, model);
    const ending = call.ending ?? 'error';
    let requests = series.endings.get(ending);
    if (requests === undefined) {
      requests = this.#requests.series({
        endpoint: call.endpoint,
        model,
        provider: call.provider ?? noProvider,
        ending,
      });
      series.endings.set(ending, requests);
    }
    requests.value += 1;
    const { usage, firstTokenMs } = call;
    const totalMs = call.elapsedMs;
    series.duration.observe(totalMs / 1000);
    series.overhead.observe(overheadMs(call) / 1000);
    if (call.attempts > 0 || call.queuedMs > 0) series.queueWait.observe(call.queuedMs / 1000);
    if (usage !== null) {
      series.inputTokens.observe(usage.input_tokens);
      series.outputTokens.observe(usage.output_tokens);
    }
    // What is not streamed shows nobody a first token.
    if (firstTokenMs !== undefined && call.stream) {
      series.firstToken.observe(firstTokenMs / 1000);
      if (usage !== null && usage.output_tokens > 1) {
        series.perToken.observe((totalMs - firstTokenMs) / 1000 / (usage.output_tokens - 1));
      }
    }
    if (call.attempts > 1) this.#countTries(call, model);
  }

  #seriesOf(call: Call, model: string): CallSeries {
    const provider = call.provider ?? noProvider;
    const key = `${call.endpoint} ${provider} ${model}`;
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const labels = { model, provider };
    const series: CallSeries = {
      duration: this.#duration.series(labels),
      firstToken: this.#firstToken.series(labels),
      perToken: this.#perToken.series(labels),
      inputTokens: this.#tokens.series({ type: 'input', ...labels }),
      outputTokens: this.#tokens.series({ type: 'output', ...labels }),
      overhead: this.#overhead.series({ endpoint: call.endpoint }),
      queueWait: this.#queueWait.series({ provider }),
      endings: new Map(),
    };
    this.#series.set(key, series);
    return series;
  }

  #countTries(call: Call, model: string): void {
    for (const [index, tried] of call.tries.entries()) {
      const before = call.tries[index - 1];
      if (before === undefined) continue;
      const again = tried.provider === before.provider && tried.upstreamModel === before.upstreamModel;
      const counter = again ? this.#retries : this.#fallbacks;
      counter.series({ model, provider: before.provider }).value += 1;
    }
  }

  #registerGauges(): void {
    const { catalog, discovery, admission, breakers, meter, logOutput, isDatabaseHealthy } = this.#deps;
    const registers = [this.#registry];
    /** Emptied first: a provider that was removed tells nothing any more. */
    const gauge = (
      name: string,
      help: string,
      labelNames: readonly string[],
      collect: (set: (labels: Record<string, string>, value: number) => void) => void,
    ): void => {
      new Gauge({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          collect((labels, value) => this.set(labels, value));
        },
      });
    };
    const eachProvider = (tell: (key: string) => void): void => {
      for (const provider of catalog.providers()) if (provider.enabled) tell(provider.key);
    };
    gauge('gateway_in_flight', 'Calls that run or wait now.', [], (set) => set({}, this.#inFlight));
    gauge('gateway_queue_depth', 'Calls that wait for a free slot now.', ['provider'], (set) =>
      eachProvider((provider) => set({ provider }, admission.queued(provider))),
    );
    gauge(
      'gateway_provider_up',
      'Whether the provider answered the last time it was asked for its models; absent if it is not asked.',
      ['provider'],
      (set) =>
        eachProvider((provider) => {
          const { reachability } = discovery.state(provider);
          if (reachability !== 'untested') set({ provider }, reachability === 'up' ? 1 : 0);
        }),
    );
    gauge('gateway_breaker_state', '0 closed, 1 half-open, 2 open.', ['provider'], (set) =>
      eachProvider((provider) => set({ provider }, breakerNumbers[breakers.state(provider)])),
    );
    gauge(
      'gateway_model_loaded',
      "Whether the model is in the provider's memory; absent where the provider does not tell.",
      ['model', 'provider'],
      (set) => {
        for (const model of catalog.list()) {
          for (const { provider, upstreamModel } of model.routes) {
            const state = discovery.info(provider.key, upstreamModel)?.state ?? 'unknown';
            if (state === 'unknown' || discovery.state(provider.key).reachability === 'down') continue;
            set({ model: model.card.title, provider: provider.key }, state === 'loaded' ? 1 : 0);
          }
        }
      },
    );
    gauge('gateway_usage_buffer_rows', 'Usage rows that wait for the disk.', [], (set) =>
      set({}, meter.buffered),
    );
    gauge(
      'gateway_database_up',
      'Whether the database was readable and writable when last used.',
      [],
      (set) => set({}, isDatabaseHealthy() ? 1 : 0),
    );
    const counter = (name: string, help: string, value: () => number): void => {
      new PrometheusCounter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(value());
        },
      });
    };
    counter(
      'gateway_usage_dropped_rows_total',
      'Usage rows that were lost because the buffer was full.',
      () => meter.dropped,
    );
    counter(
      'gateway_log_dropped_lines_total',
      'Log lines that were lost because nobody took them.',
      () => logOutput.dropped,
    );
  }
}

/** What is left of a call without its tries, the waits between them and its queues. Milliseconds. */
function overheadMs(call: Call): number {
  const total = call.elapsedMs;
  const first = call.tries[0];
  if (first === undefined) return Math.max(0, total - call.queuedMs);
  const lastEndedMs = call.tries.at(-1)?.endedMs ?? total;
  return Math.max(0, total - first.queuedMs - (lastEndedMs - first.startedMs));
}
