/** An answer that comes late and in two parts, and a gateway whose times are scaled down so that it has to bridge both silences. */
import type { Script } from '../simulators/script.ts';

const heartbeatMs = 40;

export const scaledTimes = { STREAM_COMMIT_MS: '60', HEARTBEAT_MS: String(heartbeatMs) };

/** Some heartbeats long, on a machine that is busy too. */
const silenceMs = 6 * heartbeatMs;

export const lateText = '你好,世界';

/** Nothing at all, then some text, then nothing, then the rest. */
export const late: Script = {
  hold: silenceMs,
  stall: { at: 'after-text', until: silenceMs },
  text: ['你好', ',', '世界'],
  usage: { input: 3, output: 4 },
  gapMs: 0,
};
