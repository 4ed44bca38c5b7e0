/** Whether Consul answers, and what its first answer shows: its leader, its clock, its certificate. */
import type { Certificate, Consul, Inspection, Whereabouts } from '../../consul/consul.ts';
import { isRunlockError, reasonOf } from '../../errors.ts';
import type { Clock } from '../../platform/deps.ts';
import { formatAge } from '../../text/age.ts';
import type { Check } from '../../output/doctor.ts';

/** No single request of `doctor` takes longer. */
export const TIMEOUT_MS = 5_000;

/** No retries: doctor reports what fails. */
export const once = (signal: AbortSignal) => ({ signal, retryForMs: 0, timeoutMs: TIMEOUT_MS });

/** Turns an error into a problem; the error's message says what is wrong, then what to do. */
export function problem(check: Check['check'], error: unknown): Check {
  if (!isRunlockError(error)) throw error;
  const [, found = error.message, fix] = /^(.*?)(?:; ([^;]*))?$/s.exec(reasonOf(error)) ?? [];
  return { check, level: 'problem', found, ...(fix !== undefined && { fix }) };
}

export interface Contact {
  readonly checks: readonly Check[];
  /** Undefined: further requests would fail too. */
  readonly answer?: Inspection;
}

/** The first request, which every token may send. */
export async function contact(
  consul: Consul,
  { clock, where, signal }: { clock: Clock; where: Whereabouts; signal: AbortSignal },
): Promise<Contact> {
  const [sentAt, sentMs] = [clock.now(), clock.monotonicMs()];
  let answer: Inspection;
  try {
    answer = await consul.inspect('/status/leader', once(signal));
  } catch (error) {
    return { checks: [problem('contact', error)] };
  }
  const tookMs = clock.monotonicMs() - sentMs;
  const { date, certificate, body, remote } = answer;
  const sameHost = remote === undefined || isLoopback(remote.address);
  const checks = [
    judgeTime(tookMs),
    judgeTls(where, certificate, clock.now()),
    ...(date === undefined ? [] : [judgeClock({ sentAt, answeredAt: sentAt + tookMs, date, sameHost })]),
    judgeLeader(body),
  ];
  return { checks, ...(typeof body === 'string' && body !== '' && { answer }) };
}

function judgeTime(tookMs: number): Check {
  const found = `Consul answered in ${Math.ceil(tookMs)} ms`;
  if (tookMs < 1_000) return { check: 'contact', level: 'ok', found };
  const fix = 'is the agent, or the network to it, overloaded?';
  return { check: 'contact', level: 'warning', found, fix };
}

function judgeLeader(body: unknown): Check {
  if (typeof body === 'string' && body !== '') return { check: 'leader', level: 'ok', found: body };
  const fix =
    "more than half of the servers must be up and reach each other; see 'consul members' and the servers' logs";
  return { check: 'leader', level: 'problem', found: 'Consul has no leader, so no runs can start', fix };
}

const SOON_MS = 14 * 86_400_000;

/** Pure. */
export function judgeTls(
  { tls, verify, socketPath, address }: Whereabouts,
  certificate: Certificate | undefined,
  now: number,
): Check {
  if (!tls) {
    const host = address
      .replace(/^https?:\/\//, '')
      .replace(/^.*@/, '')
      .replace(/(:\d+)?(\/.*)?$/, '');
    const local = socketPath !== undefined || isLoopback(host);
    if (local) return { check: 'tls', level: 'ok', found: 'not used, and not needed on this host' };
    const fix = 'use https:// in CONSUL_HTTP_ADDR, or run an agent on this host';
    return { check: 'tls', level: 'note', found: 'not used: the token travels unencrypted', fix };
  }
  const leftMs = (certificate?.validTo ?? Infinity) - now;
  const ends = Number.isFinite(leftMs) ? `, certificate valid for ${formatAge(leftMs)}` : '';
  if (!verify) {
    const why =
      certificate?.distrust === undefined ? '' : ` (verification would fail: ${certificate.distrust})`;
    const fix = 'set CONSUL_CACERT and unset CONSUL_HTTP_SSL_VERIFY';
    return { check: 'tls', level: 'warning', found: `the agent's certificate is not verified${why}`, fix };
  }
  if (leftMs > SOON_MS) return { check: 'tls', level: 'ok', found: `verified${ends}` };
  const fix = "renew the agent's certificate";
  return { check: 'tls', level: 'warning', found: `verified${ends}`, fix };
}

/** Hosts' clocks may differ by this much (docs/protocol.md, "Acquire"). */
const DIFFERENCE_MS = 5_000;

/**
 * Compares the agent's clock with this host's. The agent's Date has whole seconds and was set at some time between
 * request and answer, so this reports the smallest possible difference. Pure.
 */
export function judgeClock(times: {
  sentAt: number;
  answeredAt: number;
  date: number;
  sameHost: boolean;
}): Check {
  const leastAhead = times.sentAt - (times.date + 1_000);
  const mostAhead = times.answeredAt - times.date;
  const apartMs = Math.max(0, leastAhead, -mostAhead);
  if (apartMs === 0) {
    const found = times.sameHost
      ? "same as the agent's, which is on this host (other hosts not checked)"
      : "same as the agent's, to the second";
    return { check: 'clock', level: 'ok', found };
  }
  const about = formatApart(Math.abs(leastAhead + mostAhead) / 2);
  const found = `this host's clock is about ${about} ${leastAhead > 0 ? 'ahead of' : 'behind'} the agent's`;
  if (apartMs <= DIFFERENCE_MS) {
    const fix = 'no action needed yet: up to 5 s are allowed';
    return { check: 'clock', level: apartMs > DIFFERENCE_MS / 2 ? 'warning' : 'note', found, fix };
  }
  const fix = 'set both by NTP (chrony, systemd-timesyncd): the end of a --hold depends on the clock';
  return { check: 'clock', level: 'problem', found, fix };
}

/** Rounded to what can be measured. */
const formatApart = (ms: number) =>
  formatAge(ms < 60_000 ? Math.round(ms / 1_000) * 1_000 : Math.round(ms / 10_000) * 10_000);

function isLoopback(host: string): boolean {
  return /^(?:::ffff:)?127\.|^localhost$|^\[?::1\]?$/.test(host);
}
