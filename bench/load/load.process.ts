/** The process that makes the load: takes one job at a time from the harness. */
import { serveRequests } from '../process-messages.ts';
import { loadAnswers } from './answers.ts';
import type { LoadJob, LoadResult } from './jobs.ts';
import { loadFirstEvents, loadLeaving, loadStreams } from './streams.ts';

serveRequests<LoadJob, LoadResult>(async (job) => {
  switch (job.kind) {
    case 'json':
      return loadAnswers(job);
    case 'streams':
      return loadStreams(job);
    case 'first-event':
      return loadFirstEvents(job);
    case 'leaving':
      return loadLeaving(job);
    default:
      return job satisfies never;
  }
});
