/** Which addresses are no model server's, in every form in which they can be written, and the lookup that keeps to it. */
import dns from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';

/**
 * Link-local addresses, and those where cloud metadata services hand out the machine's own credentials. 168.63.129.16 is Azure's,
 * 100.100.100.200 Alibaba's, 192.0.0.192 Oracle's, fd00:ec2::254 and fd20:ce::254 are Amazon's and Google's.
 */
const forbidden = new BlockList();
forbidden.addSubnet('169.254.0.0', 16, 'ipv4');
for (const address of ['168.63.129.16', '100.100.100.200', '192.0.0.192']) {
  forbidden.addAddress(address, 'ipv4');
}
forbidden.addSubnet('fe80::', 10, 'ipv6');
for (const address of ['fd00:ec2::254', 'fd20:ce::254']) forbidden.addAddress(address, 'ipv6');

/** The sixteen bytes of an IPv6 address that `isIP` takes. */
function bytesOf(address: string): readonly number[] {
  const dotted = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  const hex = (high: string | undefined, low: string | undefined): string =>
    (Number(high) * 256 + Number(low)).toString(16);
  const plain =
    dotted === null
      ? address
      : `${address.slice(0, dotted.index)}${hex(dotted[1], dotted[2])}:${hex(dotted[3], dotted[4])}`;
  const [head = '', tail] = plain.split('::');
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const zeros = new Array<number>(tail === undefined ? 0 : 8 - first.length - last.length).fill(0);
  return [...first, ...zeros, ...last].flatMap((group) => [group >> 8, group & 255]);
}

/**
 * The IPv4 addresses that an IPv6 address may carry. Forms: compatible and mapped (RFC 4291), translated (`::ffff:0:a.b.c.d`, RFC 2765),
 * NAT64 (RFC 6052 and 8215, where the prefix of the network's own choice decides which bytes count), 6to4 (RFC 3056), Teredo
 * (RFC 4380, inverted) and ISATAP (RFC 5214).
 */
function carriedBy(address: string): string[] {
  const bytes = bytesOf(address);
  const group = (index: number): number => ((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0);
  const pick = (...at: readonly number[]): string => at.map((index) => bytes[index]).join('.');
  const last = pick(12, 13, 14, 15);
  if ([0, 1, 2, 3].every((index) => group(index) === 0)) return [last];
  if (group(0) === 0x64 && group(1) === 0xff9b) {
    return group(2) === 1 ? [last, pick(6, 7, 9, 10), pick(7, 9, 10, 11), pick(9, 10, 11, 12)] : [last];
  }
  if (group(0) === 0x2002) return [pick(2, 3, 4, 5)];
  if (group(0) === 0x2001 && group(1) === 0) {
    return [[12, 13, 14, 15].map((index) => 255 - (bytes[index] ?? 0)).join('.')];
  }
  return (group(4) & 0xfdff) === 0 && group(5) === 0x5efe ? [last] : [];
}

/** Whether an address is link-local or a metadata service's. False for what is no address. */
export function isForbiddenAddress(host: string): boolean {
  const address = host.replace(/^\[|\]$/g, '').replace(/%.*$/, '');
  const family = isIP(address);
  if (family === 0) return false;
  if (family === 4) return forbidden.check(address, 'ipv4');
  return (
    forbidden.check(address, 'ipv6') || carriedBy(address).some((carried) => forbidden.check(carried, 'ipv4'))
  );
}

/** What a connection to such an address fails with. */
export class ForbiddenAddressError extends Error {
  readonly code = 'ELINKLOCAL';

  constructor() {
    super('a link-local or metadata address');
  }
}

/** As `dns.lookup`, but a name that leads to a forbidden address leads nowhere: whoever owns a name may let it lead anywhere. */
export const lookupAllowed: LookupFunction = (hostname, options, callback) => {
  dns.lookup(hostname, options, (error, found, family) => {
    const addresses = Array.isArray(found) ? found.map(({ address }) => address) : [found ?? ''];
    if (error === null && addresses.some(isForbiddenAddress))
      callback(new ForbiddenAddressError(), found, family);
    else callback(error, found, family);
  });
};
