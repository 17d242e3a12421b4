/** Which fields that no API of the gateway has go to a provider as they came. Knows no provider and no dialect. */

/** Stands for every name but those that decide where a request goes and as whom. */
const everyName = '*';

const deciding: ReadonlySet<string> = new Set([
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

/** Models, addresses and credentials by any of their names. */
const decidingPart =
  /(?:^|_)(?:models?|fallbacks?|url|uri|host|endpoint|proxy|api_?(?:base|key|type|version)|access_?key|(?:access|auth|session|ad)_?token|bearer|authorization|secret|password|credentials?)(?:$|_)/;

/** `baseURL` and `base-url` are `base_url`. */
const inSnakeCase = (name: string): string =>
  name
    .replace(/(?<=[a-z\d])(?=[A-Z])/g, '_')
    .replace(/[-. ]/g, '_')
    .toLowerCase();

function decides(name: string): boolean {
  const plain = inSnakeCase(name);
  return deciding.has(plain) || decidingPart.test(plain);
}

/** @param listed the names that a provider's row has, maybe `*` */
export function passes(listed: readonly string[], name: string): boolean {
  return listed.includes(name) || (listed.includes(everyName) && !decides(name));
}
