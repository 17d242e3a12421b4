/** From a schema's complaints to the one error that the caller sees, in the contract's order and words. */
import { z } from 'zod';
import { GatewayError, invalidMessage, invalidParameter, unknownFields } from '../chat/errors.ts';
import { plainReader } from './plain-body.ts';

const chinese = z.locales.zhCN().localeError;

/** `messages[0].content[1].text`: a path as the caller would write it. */
function pathOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  );
}

/** The deepest complaint of the branch that got furthest: what the caller most probably meant. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const branches = issue.errors.filter((branch) => branch.length > 0);
  const ranked = branches
    .map((branch) => branch.map(innermost))
    .map((branch) => branch[0])
    .filter((found) => found !== undefined)
    .filter((found) => found.path.length > 0 || found.code !== 'invalid_type');
  const best = ranked.sort((one, other) => other.path.length - one.path.length)[0];
  return best === undefined ? issue : { ...best, path: [...issue.path, ...best.path] };
}

const wordsOf = (issue: z.core.$ZodIssue): string =>
  issue.message.replaceAll('：', ':').replaceAll('，', ', ');

/** Names that are told of fields that nobody knows. */
const mostNames = 20;

/**
 * With the first wrong element of a list the rest of it is not looked at: a caller may send half a million. zod's own `validate` sets
 * the same flag, its types do not name it: https://github.com/colinhacks/zod/blob/v4.6.7/packages/zod/src/v4/core/parse.ts
 */
const options = { error: chinese, reportInput: true, abortEarly: true } as const;

/** The first complaint about one field of an object; undefined where it is good, or not there to be judged. */
function complaintAbout(field: string, schema: z.ZodType, body: unknown): z.core.$ZodIssue | undefined {
  if (!(schema instanceof z.ZodObject) || typeof body !== 'object' || body === null || Array.isArray(body))
    return undefined;
  const shape: Readonly<Record<string, z.core.$ZodType>> = schema.shape;
  const known = shape[field];
  if (known === undefined) return undefined;
  const issue = z.safeParse(known, (body as Readonly<Record<string, unknown>>)[field], options).error
    ?.issues[0];
  return issue === undefined ? undefined : { ...issue, path: [field, ...issue.path] };
}

/** The error for a body that is not what its schema says: model first, then messages, parameters, unknown fields. */
function requestError(schema: z.ZodType, body: unknown, found: z.core.$ZodIssue | undefined): GatewayError {
  if (complaintAbout('model', schema, body) !== undefined || found?.path[0] === 'model') {
    return new GatewayError('INVALID_MODEL', { param: 'model' });
  }
  const ofMessages = complaintAbout('messages', schema, body);
  if (ofMessages !== undefined) return messagesError(innermost(ofMessages));
  if (found === undefined) return new GatewayError('INVALID_PARAMS');
  const issue = innermost(found);
  if (issue.code === 'unrecognized_keys') {
    return unknownFields(issue.keys.slice(0, mostNames).map((key) => pathOf([...issue.path, key])));
  }
  return issue.path.length === 0
    ? new GatewayError('INVALID_PARAMS', { detail: '请求体必须是 JSON 对象' })
    : invalidParameter(pathOf(issue.path), wordsOf(issue));
}

function messagesError(issue: z.core.$ZodIssue): GatewayError {
  const isMissing = issue.input === undefined || issue.input === null;
  if (issue.path.length === 1 && (isMissing || issue.code === 'too_small')) {
    return new GatewayError('INVALID_MESSAGES', { message: '消息列表不能为空', param: 'messages' });
  }
  if (issue.code === 'unrecognized_keys') {
    return invalidMessage(pathOf(issue.path), `未知字段 ${issue.keys.slice(0, mostNames).join(', ')}`);
  }
  return invalidMessage(pathOf(issue.path), wordsOf(issue));
}

/** What parses bodies of one schema, made once for each. It throws GatewayError. */
export function bodyParser(schema: z.ZodType): (body: unknown) => unknown {
  const plain =
    schema instanceof z.ZodObject && 'messages' in schema.shape ? plainReader(schema.shape) : undefined;
  return (body) => plain?.(body) ?? parseRequest(schema, body);
}

/** @throws GatewayError */
function parseRequest<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const parsed = schema.safeParse(body, options);
  if (parsed.success) return parsed.data;
  throw requestError(schema, body, parsed.error.issues[0]);
}
