/** Takes a provider out of rotation while its connections fail, and back when it answers again. Knows no request. */
import {
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleAll,
} from 'cockatiel';
import type { Logger } from 'pino';
import { GatewayError } from '../chat/errors.ts';

export type BreakerState = 'closed' | 'half-open' | 'open';

/** Failures in a row that open it. */
const threshold = 5;

/** From opening to the probe, and from one failed probe to the next. Milliseconds. */
const probeAfterMs = 5000;

interface Circuit {
  readonly policy: CircuitBreakerPolicy;
  /** Whether there is something that a success would have to clear. */
  failing: boolean;
  timer: NodeJS.Timeout | undefined;
}

/** Whether a failure speaks against the provider: its connection, its 5xx, its cut streams; not what the request deserved. */
function isProviderFailure(error: unknown): boolean {
  if (!(error instanceof GatewayError)) return false;
  if (error.reason === 'connect' || error.reason === 'cut') return true;
  return error.upstreamStatus !== undefined && error.upstreamStatus >= 500;
}

export class Breakers {
  readonly #circuits = new Map<string, Circuit>();
  readonly #probe: (provider: string) => Promise<boolean>;
  readonly #log: Logger;

  /** @param probe asks the provider for its model list: true if it answers. Never a generation. */
  constructor(probe: (provider: string) => Promise<boolean>, log: Logger) {
    this.#probe = probe;
    this.#log = log;
  }

  state(provider: string): BreakerState {
    switch (this.#circuits.get(provider)?.policy.state) {
      case CircuitState.Open:
      case CircuitState.Isolated:
        return 'open';
      case CircuitState.HalfOpen:
        return 'half-open';
      default:
        return 'closed';
    }
  }

  /** Notes how a try ended. Cancels, 4xx and 429 are neutral: do not report them as successes. */
  report(provider: string, error: unknown): void {
    const failed = isProviderFailure(error);
    const circuit = this.#circuits.get(provider) ?? (failed ? this.#create(provider) : undefined);
    if (circuit === undefined || circuit.policy.state !== CircuitState.Closed) return;
    if (!failed && (error !== undefined || !circuit.failing)) return;
    circuit.failing = failed;
    // The breaker counts only what it runs; an open one would take the next caller for its probe, so it runs nothing then.
    circuit.policy
      .execute(() => {
        if (failed) throw error;
      })
      .catch(() => {});
  }

  close(): void {
    for (const circuit of this.#circuits.values()) clearInterval(circuit.timer);
    this.#circuits.clear();
  }

  #create(provider: string): Circuit {
    const policy = circuitBreaker(handleAll, {
      halfOpenAfter: probeAfterMs - 1,
      breaker: new ConsecutiveBreaker(threshold),
    });
    const circuit: Circuit = { policy, failing: false, timer: undefined };
    policy.onBreak(() => {
      this.#log.warn(
        { provider },
        'the provider keeps failing: other routes are preferred until it answers again',
      );
      circuit.timer ??= setInterval(() => void this.#try(provider, circuit), probeAfterMs).unref();
    });
    policy.onReset(() => {
      this.#log.info({ provider }, 'the provider answers again');
      clearInterval(circuit.timer);
      circuit.timer = undefined;
      circuit.failing = false;
    });
    this.#circuits.set(provider, circuit);
    return circuit;
  }

  async #try(provider: string, circuit: Circuit): Promise<void> {
    await circuit.policy
      .execute(async () => {
        if (!(await this.#probe(provider))) throw new Error('no answer');
      })
      .catch(() => {});
  }
}
