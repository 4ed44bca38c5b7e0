/** A hook's file → what is posted where, and when. Pure. */
import { RunlockError, isRunlockError } from '../../errors.ts';
import { DURATIONS, durationMs } from '../../text/duration.ts';
import { nearest } from '../../text/nearest.ts';
import type { Entry } from '../task/definition.ts';
import { readTrigger, toTrigger } from '../task/trigger.ts';
import type { Trigger, TriggerDraft } from '../task/trigger.ts';

/** Tells another program of a change. */
export interface Hook {
  readonly name: string;
  readonly file: string;
  readonly description?: string;
  readonly post: URL;
  /** Holds the key of the signature; undefined: what is posted is not signed. */
  readonly secretFile?: string;
  /** Of one request, from its first byte to the answer's status. */
  readonly timeoutMs: number;
  readonly trigger: Pick<Trigger, 'on' | 'debounceMs' | 'onFirst'>;
}

const KEYS = ['on', 'post', 'secret_file', 'timeout', 'debounce', 'on_first', 'description'] as const;

const DEFAULT_TIMEOUT_MS = 10_000;
const LONGEST_TIMEOUT_MS = 60_000;

interface Draft {
  description?: string;
  post?: URL;
  secretFile?: string;
  timeoutMs?: number;
  trigger: TriggerDraft;
}

/** @throws RunlockError `config`: file and line, what is wrong, and what is right. */
export function toHook({ name, file }: Pick<Hook, 'name' | 'file'>, entries: readonly Entry[]): Hook {
  const draft: Draft = { trigger: {} };
  for (const entry of entries) at(file, entry.line, () => take(entry, draft));
  const { description, post, secretFile, timeoutMs = DEFAULT_TIMEOUT_MS } = draft;
  const { on = [] } = draft.trigger;
  const trigger = on.length > 0 ? toTrigger(draft.trigger) : undefined;
  if (!trigger) throw wrong(`${file}: a hook needs conditions, as in on = ["state:web/backends"]`);
  if (!post)
    throw wrong(`${file}: a hook needs an address, as in post = "https://hooks.example.com/runlock"`);
  return {
    name,
    file,
    post,
    timeoutMs,
    trigger,
    ...(description !== undefined && { description }),
    ...(secretFile !== undefined && { secretFile }),
  };
}

function take({ path: [key = '', ...below], value }: Entry, draft: Draft): void {
  const known = KEYS.find((each) => each === key);
  switch (known) {
    case undefined: {
      const meant = nearest(key, KEYS);
      throw wrong(`unknown key '${key}'; ${meant ? `did you mean '${meant}'?` : `write ${KEYS.join(', ')}`}`);
    }
    case 'on':
    case 'debounce':
    case 'on_first':
      draft.trigger = { ...draft.trigger, ...readTrigger(known, below, value) };
      return;
    case 'post':
      draft.post = toAddress(text(known, below, value));
      return;
    case 'secret_file':
      draft.secretFile = text(known, below, value);
      if (!draft.secretFile.startsWith('/'))
        throw wrong(`secret_file: not an absolute path; begin it with /`);
      return;
    case 'timeout':
      draft.timeoutMs = toTimeout(below.length === 0 ? value : undefined);
      return;
    case 'description':
      draft.description = text(known, below, value);
  }
}

function text(key: string, below: readonly string[], value: unknown): string {
  if (below.length === 0 && typeof value === 'string' && /^[^\p{Cc}]+$/u.test(value)) return value;
  throw wrong(`${key}: write a text in quotes, of one line`);
}

function toTimeout(value: unknown): number {
  const ms = typeof value === 'string' ? durationMs(value) : undefined;
  if (ms === undefined) throw wrong(`timeout: not a duration; ${DURATIONS}, in quotes`);
  if (ms > 0 && ms <= LONGEST_TIMEOUT_MS) return ms;
  throw wrong(`timeout: must be greater than 0, and ${LONGEST_TIMEOUT_MS / 1_000}s at most`);
}

/** Never repeats the address in a message: what follows the host may be a secret. */
function toAddress(given: string): URL {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (!url) throw wrong('post: not an address; write it like https://hooks.example.com/runlock');
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname)))
    throw wrong('post: only https is allowed, or http to this host itself (localhost, 127.0.0.1, [::1])');
  if (url.username !== '' || url.password !== '')
    throw wrong('post: an address with a user and a password is not allowed; sign with secret_file instead');
  url.hash = '';
  return url;
}

const isLoopback = (host: string) =>
  host === 'localhost' || host === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host);

function at(file: string, line: number, read: () => void): void {
  try {
    read();
  } catch (error) {
    if (!isRunlockError(error)) throw error;
    throw wrong(`${file}:${line}: ${error.message}`);
  }
}

const wrong = (message: string) => new RunlockError('config', message);
