/** What the administration's routes share: ids of rows, answers to POST, and refusals as their callers see them. */
import { AdminError } from '../../admin/administration.ts';
import { GatewayError } from '../../chat/errors.ts';

/** The answer to what was asked for by POST. */
export const created = <T>(data: T) => ({ code: 201, message: 'success', data }) as const;

/** A refusal of the administration as the error that the caller sees. @param displayName of the provider that it is about */
export function asCallersError(error: unknown, displayName = ''): unknown {
  if (!(error instanceof AdminError)) return error;
  const { code, message, field } = error;
  switch (code) {
    case 'INVALID_PARAMS':
      return new GatewayError(code, { detail: message, ...(field === undefined ? {} : { param: field }) });
    case 'NOT_FOUND':
      return new GatewayError(code, { cause: error });
    case 'CONFLICT':
      return new GatewayError(code, { detail: message });
    case 'UPSTREAM_ERROR':
      return new GatewayError(code, { message: `${displayName}返回错误:${message}` });
    default:
      return code satisfies never;
  }
}

/** @throws GatewayError NOT_FOUND for what can be no row's id */
export function idOf(id: string): number {
  if (!/^[1-9]\d{0,14}$/.test(id)) throw new GatewayError('NOT_FOUND');
  return Number(id);
}
