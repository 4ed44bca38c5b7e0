/**
 * The mark of a run: a secret that all its processes have in their environment, and nobody else can know. The run's id,
 * which stands in Consul, logs and command lines, is made from it: who reads the id can't make the mark.
 */
import { getBuiltinModule } from 'node:process';

/** Inherited by everything that the command starts, whatever process group, session or parent it moves to. */
export const MARK_VARIABLE = 'RUNLOCK_RUN_MARK';

export interface RunIdentity {
  /** Public; in the form of a UUID. */
  readonly id: string;
  /** 32 hexadecimal digits. Never in argv, Consul or a log. */
  readonly nonce: string;
}

/** A run that nobody has seen yet. */
export async function newRun(): Promise<RunIdentity> {
  // By Web Crypto: to load node:crypto would take longer than the rest.
  const nonce = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('hex');
  const hash = await crypto.subtle.digest('SHA-256', Buffer.from(nonce));
  return { id: toId(Buffer.from(hash).toString('hex')), nonce };
}

/** The first 128 bits of the SHA-256 of the nonce. */
export function runIdOf(nonce: string): string {
  const { createHash } = getBuiltinModule('node:crypto');
  return toId(createHash('sha256').update(nonce).digest('hex'));
}

function toId(digits: string): string {
  const at = (start: number, end: number) => digits.slice(start, end);
  return `${at(0, 8)}-${at(8, 12)}-${at(12, 16)}-${at(16, 20)}-${at(20, 32)}`;
}

const NONCE = /^[0-9a-f]{32}$/;

/** The variable's value for the command of a run that may itself run inside others: their nonces go on, outermost first. */
export function markValue(nonce: string, inherited: string | undefined): string {
  return [...noncesIn(inherited ?? ''), nonce].join(':');
}

const noncesIn = (value: string): string[] => value.split(':').filter((each) => NONCE.test(each));

const START = Buffer.from(`${MARK_VARIABLE}=`);

/** The nonces in an environment as /proc/PID/environ shows it: entries that end with a zero byte. */
export function noncesOf(environment: Buffer): string[] {
  for (let at = environment.indexOf(START); at !== -1; at = environment.indexOf(START, at + 1)) {
    if (at !== 0 && environment[at - 1] !== 0) continue;
    const end = environment.indexOf(0, at);
    return noncesIn(environment.toString('latin1', at + START.length, end === -1 ? undefined : end));
  }
  return [];
}
