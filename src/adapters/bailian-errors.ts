/**
 * How Bailian (DashScope) says that it failed, in compatible and native form and in the mixtures that occur, and its
 * native frames in compatible shape. Knows nothing of requests.
 * Codes: https://help.aliyun.com/zh/model-studio/error-code.
 */
import { z } from 'zod';
import { errorIn, parseJson, type Verdict, type WireError } from './wire-errors.ts';

/** Since late 2025 messages end with a link to the page about them. */
const docsTail =
  /\s*(?:for (?:more )?(?:details|information)\b[^:：]{0,40}|(?:详情|更多)[^:：]{0,20})[:：]?\s*https?:\/\/\S+\s*$/i;

/** Pascal case, snake case and dots are spellings of one code. */
const spell = (code: string): string => code.toLowerCase().replace(/[._\s-]/g, '');

const permanent = { reason: 'quota', retryable: false } as const;

/** What a code means whatever the HTTP status beside it says. */
const outright: readonly (readonly [RegExp, Verdict])[] = [
  // An account in debt is a 400 on the wire, and no fault of the request.
  [/^(?:arrearage|commoditynotpurchased|(?:pre|post)paidbilloverdue)$/, { status: 402, ...permanent }],
  [/^datainspectionfailed$/, { status: 400, reason: 'content_filter' }],
  [/^(?:faqruleblocked|customroleblocked|ipinfringementsuspect)$/, { status: 400, reason: 'content_filter' }],
  // 500 today, 408 in older documentation.
  [/^(?:requesttimeout|internalerrortimeout)$/, { status: 408 }],
  [/^allocationquotafreetieronly$/, permanent],
];

/** What a code means where nothing else tells the status: inside a stream. */
const byCode: readonly (readonly [RegExp, number])[] = [
  [/^(?:invalidapikey|notauthorized)$/, 401],
  [/accessdenied|allocationquotafreetieronly/, 403],
  [/^(?:modelnotfound|modelnotsupported|workspacenotfound|notfound)$/, 404],
  [/^(?:throttling|limitrequests|limitburstrate|insufficientquota)/, 429],
  [/^(?:internalerror|systemerror|modelservicefailed)/, 500],
  [/^(?:modelservingerror|modelunavailable)$/, 503],
  [/^(?:invalidparameter|invalidrequest|invalidvalue|badrequest)/, 400],
];

/** A throttle that comes without a code: as the text of a chunk under `finish_reason: error_finish`. */
const throttleWords =
  /^\s*(?:throttling\b|allocated quota exceeded|requests? rate (?:limit exceeded|increased too quickly)|requests throttling|you(?: have)? exceeded your (?:current )?(?:request|quota)|too many requests)/i;

const streamOnly = /only supports? (?:.{0,20} )?stream|for non-streaming calls|does not support http call/i;

/** The platform's reading of a complaint: what its codes and phrases say over the HTTP status. */
export function classify(error: WireError, status: number | undefined): Verdict {
  const codes = [error.code, error.type].filter((code) => code !== undefined).map(spell);
  const words = error.words.replace(docsTail, '');
  const known = outright.find(([pattern]) => codes.some((code) => pattern.test(code)))?.[1];
  if (known !== undefined) return { words, ...known };
  if (/DataInspectionFailed|may contain inappropriate content/i.test(words)) {
    return { words, status: 400, reason: 'content_filter' };
  }
  // The number that heads an engine's message is the real class: a 400 may hold a <429> or a <500>.
  const head = /^\s*<(\d{3})>/.exec(words)?.[1] ?? /^httpstatus\/?(\d{3})$/.exec(codes[0] ?? '')?.[1];
  const told = head === undefined ? status : Number(head);
  const meant =
    told ??
    byCode.find(([pattern]) => codes.some((code) => pattern.test(code)))?.[1] ??
    (throttleWords.test(words) ? 429 : undefined);
  const verdict = { words, ...(meant === undefined ? {} : { status: meant }) };
  if (meant === 400 && /^\s*model not exist/i.test(words)) return { ...verdict, status: 404 };
  if (meant === 400 && streamOnly.test(words)) return { ...verdict, reason: 'stream_only' };
  // `insufficient_quota` is a throttle here (tokens per minute) and passes; a free allowance that is used up does not.
  if (meant === 429 && /^\s*(?:<\d+>\s*)?free\b/i.test(words)) return { ...verdict, ...permanent };
  return verdict;
}

const text = z.string().nullish().catch(undefined);
const count = z.number().nullish().catch(undefined);

const brokenAnswer = z.object({
  choices: z
    .array(
      z.object({
        finish_reason: z.literal('error_finish'),
        delta: z.object({ content: text }).nullish(),
        message: z.object({ content: text }).nullish(),
      }),
    )
    .min(1),
});

const nativeMessage = z.looseObject({
  content: z
    .union([
      z.string(),
      z.array(z.looseObject({ text })).transform((parts) => parts.map((part) => part.text ?? '').join('')),
    ])
    .nullish(),
});

const nativeAnswer = z.object({
  output: z.object({
    choices: z.array(z.object({ message: nativeMessage.nullish(), finish_reason: text })).nullish(),
    text,
    finish_reason: text,
  }),
  usage: z
    .object({
      input_tokens: count,
      output_tokens: count,
      total_tokens: count,
      prompt_tokens_details: z.unknown().optional(),
      output_tokens_details: z.unknown().optional(),
    })
    .nullish()
    .catch(undefined),
});

/** The error that a chunk carries as text under `finish_reason: error_finish`: a native block, or bare words. */
function errorInText(content: string): object {
  const block = /data:\s*(\{.*\})/s.exec(content)?.[1];
  const status = /:HTTP_STATUS\/(\d{3})/.exec(content)?.[1];
  const inner = block === undefined ? undefined : errorIn(parseJson(block));
  const code = inner?.code ?? inner?.type ?? (status === undefined ? undefined : `HTTP_STATUS/${status}`);
  return { message: inner?.words ?? content, code };
}

/** A body or chunk in the shape that every chat-completions server uses; what has it already is returned as it is. */
export function compatible(json: unknown): unknown {
  const broken = brokenAnswer.safeParse(json).data?.choices[0];
  if (broken !== undefined) {
    return { error: errorInText(broken.delta?.content ?? broken.message?.content ?? '') };
  }
  const native = nativeAnswer.safeParse(json).data;
  if (native === undefined) return json;
  const { output, usage } = native;
  return {
    choices: output.choices?.map(({ message, finish_reason }) => ({ delta: message, finish_reason })) ?? [
      { delta: { content: output.text }, finish_reason: output.finish_reason },
    ],
    usage: usage && {
      prompt_tokens: usage.input_tokens,
      completion_tokens: usage.output_tokens,
      total_tokens: usage.total_tokens,
      prompt_tokens_details: usage.prompt_tokens_details,
      completion_tokens_details: usage.output_tokens_details,
    },
  };
}

/** Whether a chunk may need `compatible`. Inside a JSON string both words would have their quotes escaped. */
export const isForeign = (data: string): boolean =>
  data.includes('"error_finish"') || data.includes('"output":');
