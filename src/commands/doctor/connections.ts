/**
 * Counts the connections that this host has open to the agent. Consul accepts 200 from one address; it closes further
 * ones silently, or answers 429.
 */
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { endianness } from 'node:os';
import type { Remote } from '../../consul/consul.ts';
import type { Check } from '../../output/doctor.ts';

const LIMIT = 200;
const MANY = 150;

/** @param remote undefined: a Unix socket, or no answer. */
export function judgeConnections(remote: Remote | undefined): Check[] {
  if (!remote) return [];
  const tables = ['/proc/net/tcp', '/proc/net/tcp6'].map(readTable);
  if (tables.every((table) => table === undefined)) {
    return [{ check: 'connections', level: 'note', found: "not checked: can't read /proc/net/tcp" }];
  }
  const count = countConnections(tables.join('\n'), remote);
  const found = `${count} open from this host to the agent; Consul's default limit is ${LIMIT} from one address`;
  if (count < MANY) return [{ check: 'connections', level: 'ok', found }];
  const port = `'( dport = :${remote.port} )'`;
  const fix = `to see which processes hold them: ss -tnp ${port}; to raise the limit: limits.http_max_conns_per_client in the agent's configuration`;
  return [{ check: 'connections', level: 'warning', found, fix }];
}

function readTable(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

const ESTABLISHED = '01';

/** The largest number of connections that one local address has open to `remote`, from proc(5)'s tables. Pure. */
export function countConnections(tables: string, { address, port }: Remote): number {
  const end = port.toString(16).toUpperCase().padStart(4, '0');
  const wanted = new Set(spellings(address).map((host) => `${host}:${end}`));
  const counts = new Map<string, number>();
  for (const line of tables.split('\n')) {
    const [, local = '', remote = '', state] = line.trim().split(/\s+/);
    if (state !== ESTABLISHED || !wanted.has(remote)) continue;
    // /proc/net/tcp and tcp6 spell the same IPv4 address differently.
    const host = local.split(':')[0]?.slice(-8) ?? '';
    counts.set(host, (counts.get(host) ?? 0) + 1);
  }
  return Math.max(0, ...counts.values());
}

const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** The address as the kernel's tables spell it; an IPv4 address can be in either table. */
function spellings(address: string): string[] {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  if (!isIPv4(plain)) return [inWords(bytesOf6(plain))];
  const four = plain.split('.').map(Number);
  return [inWords(four), inWords([...MAPPED, ...four])];
}

function bytesOf6(address: string): number[] {
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':').map((group) => parseInt(group, 16)));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const all = [...first, ...Array<number>(Math.max(0, 8 - first.length - last.length)).fill(0), ...last];
  return all.flatMap((group) => [group >> 8, group & 0xff]);
}

/** In words of four bytes, each in this machine's byte order. */
function inWords(bytes: readonly number[]): string {
  const hex = bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, '0'));
  const words = Array.from({ length: hex.length / 4 }, (_, i) => hex.slice(i * 4, i * 4 + 4));
  return words.map((word) => (endianness() === 'LE' ? word.reverse() : word).join('')).join('');
}
