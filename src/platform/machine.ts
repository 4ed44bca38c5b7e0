/** Which machine this is, as a claim names it: what is stored tells nobody /etc/machine-id itself. */
import { readFileSync } from 'node:fs';

const FILE = '/etc/machine-id';
/** Runlock's own; with another one the same machine would be another. */
const APPLICATION = 'b7a1f5de0c4e4c1f9d0b6a3e58c2f417';

/**
 * The machine, as `systemd-id128 machine-id --app-specific=b7a1f5de0c4e4c1f9d0b6a3e58c2f417` gives it: the HMAC-SHA256 of the
 * application, with machine-id as its key, cut to 128 bits, in the form of a version 4 UUID without hyphens. Undefined
 * where there is none, as in many a container, or it is not set yet.
 */
export async function machineOf(file = FILE): Promise<string | undefined> {
  const id = readId(file);
  if (id === undefined) return undefined;
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', Buffer.from(id, 'hex'), algorithm, false, ['sign']);
  const signed = await crypto.subtle.sign('HMAC', key, Buffer.from(APPLICATION, 'hex'));
  const bytes = Buffer.from(signed).subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex');
}

function readId(file: string): string | undefined {
  try {
    const id = readFileSync(file, 'utf8').trim();
    return /^[0-9a-f]{32}$/.test(id) && !/^0+$/.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}
