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

function rank(issue: z.core.$ZodIssue): number {
  if (issue.path[0] === 'model') return 0;
  if (issue.path[0] === 'messages') return 1;
  return issue.code === 'unrecognized_keys' && issue.path.length === 0 ? 3 : 2;
}

/** The error for a body that is not what its schema says: model first, then messages, parameters, unknown fields. */
function requestError(issues: readonly z.core.$ZodIssue[]): GatewayError {
  const worst = [...issues].sort((one, other) => rank(one) - rank(other))[0];
  if (worst === undefined) return new GatewayError('INVALID_PARAMS');
  const issue = innermost(worst);
  switch (rank(worst)) {
    case 0:
      return new GatewayError('INVALID_MODEL', { param: 'model' });
    case 1:
      return messagesError(issue);
    default:
      return issue.code === 'unrecognized_keys'
        ? unknownFields(issue.keys.map((key) => pathOf([...issue.path, key])))
        : issue.path.length === 0
          ? new GatewayError('INVALID_PARAMS', { detail: '请求体必须是 JSON 对象' })
          : invalidParameter(pathOf(issue.path), wordsOf(issue));
  }
}

function messagesError(issue: z.core.$ZodIssue): GatewayError {
  const isMissing = issue.input === undefined || issue.input === null;
  if (issue.path.length === 1 && (isMissing || issue.code === 'too_small')) {
    return new GatewayError('INVALID_MESSAGES', { message: '消息列表不能为空', param: 'messages' });
  }
  if (issue.code === 'unrecognized_keys') {
    return invalidMessage(pathOf(issue.path), `未知字段 ${issue.keys.join(', ')}`);
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
  const parsed = schema.safeParse(body, { error: chinese, reportInput: true });
  if (parsed.success) return parsed.data;
  throw requestError(parsed.error.issues);
}
