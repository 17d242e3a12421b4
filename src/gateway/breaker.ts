/** Takes a provider out of rotation while its connections fail, and back when a chat went well there. Knows no request. */
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

/** From opening to the probe, and from one probe to the next. Milliseconds. */
const probeAfterMs = 5000;

interface Circuit {
  readonly policy: CircuitBreakerPolicy;
  /** Whether there is something that a success would have to clear. */
  failing: boolean;
  /** While it is open: the model list answered, and one call may try the provider since. */
  trial: 'none' | 'free' | 'taken';
  timer: NodeJS.Timeout | undefined;
}

/** Whether a failure speaks against the provider: its connection, its 5xx, its cut streams; not what the request deserved. */
function isProviderFailure(error: unknown): boolean {
  if (!(error instanceof GatewayError)) return false;
  if (error.reason === 'connect' || error.reason === 'cut') return true;
  // Who loads a model is well.
  return error.upstreamStatus !== undefined && error.upstreamStatus >= 500 && error.reason !== 'loading';
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
    const circuit = this.#circuits.get(provider);
    if (circuit === undefined || circuit.policy.state === CircuitState.Closed) return 'closed';
    return circuit.trial === 'none' ? 'open' : 'half-open';
  }

  /** Whether a call may go there: it is closed, or half-open and no other call tries it. */
  admits(provider: string): boolean {
    const circuit = this.#circuits.get(provider);
    return circuit === undefined || circuit.policy.state === CircuitState.Closed || circuit.trial === 'free';
  }

  /** A call goes there. Where it is half-open this is the one that tries it. */
  begin(provider: string): void {
    const circuit = this.#circuits.get(provider);
    if (circuit?.trial === 'free') circuit.trial = 'taken';
  }

  /** Notes how a try ended; undefined = well, which closes it. Cancels, 4xx and 429 are neutral: do not report them as successes. */
  report(provider: string, error: unknown): void {
    const failed = isProviderFailure(error);
    const circuit = this.#circuits.get(provider) ?? (failed ? this.#create(provider) : undefined);
    if (circuit === undefined) return;
    const open = circuit.policy.state !== CircuitState.Closed;
    if (open && failed) circuit.trial = 'none';
    if (open ? failed || error !== undefined : !failed && (error !== undefined || !circuit.failing)) return;
    circuit.failing = failed;
    // The breaker counts only what it runs.
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
    // When an open one is tried is decided here: whatever is run then is a try that went well.
    const policy = circuitBreaker(handleAll, {
      halfOpenAfter: 0,
      breaker: new ConsecutiveBreaker(threshold),
    });
    const circuit: Circuit = { policy, failing: false, trial: 'none', timer: undefined };
    policy.onBreak(() => {
      this.#log.warn(
        { provider },
        'the provider keeps failing: other routes are preferred until a call goes well there again',
      );
      circuit.timer ??= setInterval(() => void this.#ask(provider, circuit), probeAfterMs).unref();
    });
    policy.onReset(() => {
      this.#log.info({ provider }, 'the provider answers again');
      clearInterval(circuit.timer);
      circuit.timer = undefined;
      circuit.failing = false;
      circuit.trial = 'none';
    });
    this.#circuits.set(provider, circuit);
    return circuit;
  }

  /**
   * A list that answers says that the provider is there, not that it can generate: one call may find that out. One more after each
   * interval, since the one before may stream for an hour, or was left.
   */
  async #ask(provider: string, circuit: Circuit): Promise<void> {
    const answers = await this.#probe(provider).catch(() => false);
    if (circuit.policy.state === CircuitState.Closed) return;
    circuit.trial = answers ? 'free' : 'none';
  }
}
