/** Which MCP servers a request may make LM Studio call. Pure: a request's integrations against two lists. */
import { GatewayError, invalidParameter } from '../chat/errors.ts';
import type { Integration } from '../chat/request.ts';
import type { Config } from '../config.ts';

type Allowed = Pick<Config, 'mcpAllowedHosts' | 'mcpAllowedPlugins'>;

/** Lower case, without the brackets of IPv6 and the dot that ends a full name. */
const bareHost = (host: string): string =>
  host
    .toLowerCase()
    .replace(/^\[|\]$/g, '')
    .replace(/\.$/, '');

/** `*`, the exact name, or `*.suffix` for every host below it. */
function isAllowedHost(host: string, allowed: readonly string[]): boolean {
  return allowed.some((entry) => {
    const pattern = bareHost(entry);
    return (
      pattern === '*' || pattern === host || (pattern.startsWith('*.') && host.endsWith(pattern.slice(1)))
    );
  });
}

/** What parsers of URLs disagree on: LM Studio must not read another host out of it than is checked here. */
const ambiguous = /[\s\\\p{Cc}]/u;

function hostOf(address: string, where: string): string {
  let url: URL;
  if (ambiguous.test(address)) throw invalidParameter(where, '不能包含空白, 控制字符或反斜杠');
  try {
    url = new URL(address);
  } catch {
    throw invalidParameter(where, '不是有效的 URL');
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw invalidParameter(where, '必须是 http 或 https 地址');
  }
  if (url.username !== '' || url.password !== '') throw invalidParameter(where, '不能包含用户名或密码');
  return bareHost(url.hostname);
}

/** @throws GatewayError FORBIDDEN that names the setting, or INVALID_PARAMS for what is no web address */
export function checkIntegrations(integrations: readonly Integration[], allowed: Allowed): void {
  for (const [index, integration] of integrations.entries()) {
    const where = `integrations[${index}]`;
    if (typeof integration === 'object' && integration.type === 'ephemeral_mcp') {
      const host = hostOf(integration.server_url, `${where}.server_url`);
      if (!isAllowedHost(host, allowed.mcpAllowedHosts)) {
        throw new GatewayError('FORBIDDEN', {
          detail: `${where}: 主机 ${host} 不在 MCP_ALLOWED_HOSTS 之内`,
          param: where,
        });
      }
      continue;
    }
    const id = typeof integration === 'string' ? integration : integration.id;
    if (!allowed.mcpAllowedPlugins.includes('*') && !allowed.mcpAllowedPlugins.includes(id)) {
      throw new GatewayError('FORBIDDEN', {
        detail: `${where}: 插件 ${id} 不在 MCP_ALLOWED_PLUGINS 之内`,
        param: where,
      });
    }
  }
}
