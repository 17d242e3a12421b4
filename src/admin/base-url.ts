/** Which addresses a provider may have. Pure: resolves no names and opens nothing. */
import { isForbiddenAddress } from '../upstream/addresses.ts';

/** Names under which clouds offer them. */
const metadataNames: ReadonlySet<string> = new Set([
  'metadata',
  'metadata.google.internal',
  'metadata.goog',
  'metadata.azure.internal',
  'instance-data',
  'instance-data.ec2.internal',
]);

/** @param hostname as a URL has it: odd notations of IPv4 (hexadecimal, octal, one number) are dotted decimals by then */
function isMetadataHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.+$/, '');
  return metadataNames.has(host) || isForbiddenAddress(host);
}

/** Why an address cannot be a provider's base URL, in one English phrase; undefined where it can. */
export function refuseBaseUrl(value: string): string | undefined {
  let url: URL;
  try {
    url = new URL(value);
  } catch {
    return 'must be a URL such as http://127.0.0.1:1234';
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return 'must be an http or https URL';
  if (url.username !== '' || url.password !== '') {
    return 'must not hold a user name or password; name the variable of a key with api_key_env';
  }
  if (url.search !== '' || url.hash !== '') return 'must not have a query or a fragment';
  if (isMetadataHost(url.hostname)) return 'must not be a link-local or metadata address';
  return undefined;
}
