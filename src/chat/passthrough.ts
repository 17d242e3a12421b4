/** Which fields that no API of the gateway has go to a provider as they came. Knows no provider and no dialect. */

/** Stands for every name but those that decide where a request goes and as whom. */
const everyName = '*';

const deciding: ReadonlySet<string> = new Set([
  'models',
  'fallbacks',
  'fallback_models',
  'engine',
  'deployment',
  'deployment_id',
  'provider',
  'providers',
  'custom_llm_provider',
  'route',
  'router',
  'transforms',
  'plugins',
  'extra_body',
  'extra_headers',
  'extra_query',
  'headers',
  'organization',
  'project',
]);

/** Addresses and credentials by any of their names. */
const decidingPart =
  /(?:^|_)(?:url|uri|host|endpoint|proxy|api_?(?:base|key|type|version)|access_?(?:key|token)|auth_?token|bearer|authorization|secret|password|credentials?)(?:$|_)/i;

const decides = (name: string): boolean => deciding.has(name.toLowerCase()) || decidingPart.test(name);

/** @param listed the names that a provider's row has, maybe `*` */
export function passes(listed: readonly string[], name: string): boolean {
  return listed.includes(name) || (listed.includes(everyName) && !decides(name));
}
