/** Which addresses a provider may have. Pure: resolves no names and opens nothing. */
import { BlockList, isIP } from 'node:net';

/**
 * Link-local addresses, and those where cloud metadata services hand out the machine's own credentials; no model server
 * lives there. 168.63.129.16 is Azure's, 100.100.100.200 Alibaba's, 192.0.0.192 Oracle's, fd00:ec2::254 and fd20:ce::254 are
 * Amazon's and Google's.
 */
const forbidden = new BlockList();
forbidden.addSubnet('169.254.0.0', 16, 'ipv4');
for (const address of ['168.63.129.16', '100.100.100.200', '192.0.0.192']) {
  forbidden.addAddress(address, 'ipv4');
}
forbidden.addSubnet('fe80::', 10, 'ipv6');
for (const address of ['fd00:ec2::254', 'fd20:ce::254']) forbidden.addAddress(address, 'ipv6');
// 169.254.0.0/16 in the forms that carry IPv4 inside IPv6: NAT64, 6to4 and the old compatible one.
forbidden.addSubnet('64:ff9b::a9fe:0', 112, 'ipv6');
forbidden.addSubnet('2002:a9fe::', 32, 'ipv6');
forbidden.addSubnet('::a9fe:0', 112, 'ipv6');

const metadataNames: ReadonlySet<string> = new Set([
  'metadata',
  'metadata.google.internal',
  'instance-data',
  'instance-data.ec2.internal',
]);

/** @param hostname as a URL has it: odd notations of IPv4 (hexadecimal, octal, one number) are dotted decimals by then */
function isMetadataHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.+$/, '');
  const family = isIP(host);
  if (family === 0) return metadataNames.has(host);
  return forbidden.check(host, family === 6 ? 'ipv6' : 'ipv4');
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
