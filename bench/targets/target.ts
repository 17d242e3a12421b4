/** What a target of the benchmark is: something that answers chat requests, and how to start it. */
import type { Endpoint } from '../load/jobs.ts';

export interface Running {
  /** Whose processor time and memory count. */
  readonly pid: number;
  /** Where to send a body, and what else goes with it. */
  readonly endpoint: Omit<Endpoint, 'body'>;
  stop(): Promise<void>;
}

export interface Place {
  readonly upstreamPort: number;
  readonly upstreamPid: number;
  /** The core for what is measured. */
  readonly core: number | undefined;
  /** A folder that goes away after the run. */
  readonly folder: string;
}

export interface Target {
  readonly name: string;
  /** It may not be there, and is then left out. */
  readonly optional?: boolean;
  /** @param rows how many rows to fill the database with, where the target has one */
  start(place: Place, rows?: number): Promise<Running>;
}

/** The path that the gateway's own upstream calls take, for those that pass it through. */
export const upstreamPath = '/api/v0/chat/completions';
