/** The ways in which Bailian itself was seen to fail, by name, as scripts for its simulator. */
import type { BailianScript } from './bailian.ts';

const docs = 'https://help.aliyun.com/zh/model-studio/error-code';

const front = (code: string, message: string, type = code): object => ({
  error: { message: `${message} For details, see: ${docs}`, type, param: null, code },
  request_id: 'sim-request',
});

const refuse = (status: number, body: object): BailianScript => ({ answer: { status, body } });

/** A refusal that comes as server-sent events, on a response that is not a 2xx. */
const refuseAsStream = (status: number, text: string): BailianScript => ({
  raw: { status, headers: { 'content-type': 'text/event-stream;charset=UTF-8' }, pieces: [text] },
});

const filterWords =
  '<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.';
const debtWords = 'Access denied, please make sure your account is in good standing.';

/** Scripts combine by spreading. */
export const bailianFaults = {
  /** Tokens per minute: passes, whatever the words say. */
  throttled: (): BailianScript =>
    refuse(
      429,
      front(
        'insufficient_quota',
        'You exceeded your current quota, please check your plan and billing details.',
      ),
    ),
  freeAllowanceUsedUp: (): BailianScript =>
    refuse(429, front('insufficient_quota', 'Free allocated quota exceeded.')),
  arrearage: (): BailianScript => refuse(400, front('Arrearage', debtWords)),
  arrearageAsNativeStream: (): BailianScript =>
    refuseAsStream(
      400,
      `id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"request_id":"r","code":"Arrearage","type":"Arrearage","message":"${debtWords}"}\n\n`,
    ),
  filtered: (): BailianScript => refuse(400, front('data_inspection_failed', filterWords)),
  filteredAsStream: (): BailianScript =>
    refuseAsStream(400, `data: ${JSON.stringify(front('data_inspection_failed', filterWords))}\n\n`),
  filteredAfterText: (): BailianScript => ({
    error: {
      at: 'after-text',
      code: 'data_inspection_failed',
      message: 'Output data may contain inappropriate content.',
    },
  }),
  throttledAfterText: (failureForm: BailianScript['failureForm'] = 'error_finish'): BailianScript => ({
    failureForm,
    error: { at: 'after-text' },
  }),
  overloaded: (): BailianScript =>
    refuse(503, front('ModelServingError', 'Too many requests. Your requests are being throttled.')),
  /** A native engine's answer on the compatible path, flat and inside a 200 stream. */
  nativeErrorIn200: (): BailianScript => ({
    raw: {
      pieces: [
        'id:1\nevent:error\n:HTTP_STATUS/500\ndata:{"code":"InternalError","message":"An internal error has occured.","request_id":"r-7"}\n\n',
      ],
    },
  }),
  /** A plain call that took too long: a 200 with what there was, and no finish reason. */
  cutAfterFiveMinutes: (): BailianScript => ({ finishReason: null }),
} as const;
