/** The hooks of a node (docs/adr/0047): a change is posted until the other side has taken it. */
import { statSync } from 'node:fs';
import { RunlockError } from '../errors.ts';
import { hookKey } from '../jobs/keys.ts';
import { placeOf } from '../jobs/trigger.ts';
import { succeeded } from '../jobs/trigger-cursor.ts';
import { readTrusted } from '../platform/trusted-file.ts';
import type { Hook } from './hook/definition.ts';
import { signatureOf, toBody } from './hook/message.ts';
import { post } from './hook/post.ts';
import type { Acted, Asked, Reactor } from './reactor.ts';
import { openCursors } from './stored-cursor.ts';
import type { Cursors } from './stored-cursor.ts';
import type { ReactorWays } from './reactors.ts';

export type HookWays = Pick<ReactorWays, 'consul' | 'deps' | 'prefix' | 'node'> & {
  readonly uid: number;
  readonly version: string;
  /** The host's; none: those of the runtime. */
  readonly authorities: () => readonly Buffer[];
  readonly newId: () => string;
};

export function hookReactor(ways: HookWays, hook: Hook): Reactor {
  const { consul, prefix, node } = ways;
  const key = hookKey(prefix, node, hook.name);
  const acting: Acting = {
    ...ways,
    hook,
    key,
    cursors: openCursors(consul, prefix, node),
    told: { of: '', id: '' },
    said: '',
  };
  return {
    name: `hook ${hook.name}`,
    key,
    on: hook.trigger.on,
    // It does no harm to tell often.
    rules: { ...hook.trigger, minIntervalMs: 0, perHour: Number.MAX_SAFE_INTEGER },
    isPausable: false,
    act: (asked, signal) => act(acting, asked, signal),
  };
}

interface Acting extends HookWays {
  readonly hook: Hook;
  readonly key: string;
  readonly cursors: Cursors;
  /** What was posted last, and under which id. */
  told: { readonly of: string; readonly id: string };
  /** Why it failed, as it was logged last. */
  said: string;
}

async function act(acting: Acting, asked: Asked, signal: AbortSignal): Promise<Acted> {
  const { hook, deps, node, uid, version, authorities, newId } = acting;
  const { asking, sights } = asked;
  const of = JSON.stringify(asking.map(({ name, mark, round }) => [name, mark, round?.high]));
  if (acting.told.of !== of) acting.told = { of, id: newId() };
  const secret = hook.secretFile === undefined ? undefined : readSecret(hook.secretFile, uid);
  const body = toBody({
    hook: hook.name,
    node,
    id: acting.told.id,
    sights,
    news: asking.map(({ name }) => name),
    sentAt: new Date(deps.clock.now()).toISOString(),
  });
  const signature = secret && signatureOf(body, secret);
  const posted = await post(hook, { body, signature, authorities: authorities(), version, signal });
  if (posted.kind === 'refused') {
    if (acting.said !== posted.why)
      deps.emit({
        event: 'hook-failed',
        hook: hook.name,
        host: hook.post.host,
        detail: { fault: posted.why },
      });
    acting.said = posted.why;
    return { kind: 'failed', why: posted.why };
  }
  acting.said = '';
  deps.emit({ event: 'hook-taken', hook: hook.name, host: hook.post.host });
  await know(acting, asked, signal);
  return { kind: 'done' };
}

async function know(
  { cursors, key, hook, deps }: Acting,
  { sights, place, turned }: Asked,
  signal: AbortSignal,
): Promise<void> {
  // What turned false meanwhile is news when it is true again.
  const told = sights.map((sight) =>
    turned.has(sight.name) && !sight.round ? { ...sight, holds: false } : sight,
  );
  for (;;) {
    const stored = await cursors.read(key, { signal });
    if (stored.read.kind === 'newer') return;
    const nowMs = deps.clock.now();
    const rules = { ...hook.trigger, minIntervalMs: 0, perHour: 1 };
    const now = placeOf(stored.read, rules, nowMs).cursor;
    if (await cursors.write(stored, succeeded({ run: '', sights: told, place }, now, nowMs), { signal }))
      return;
  }
}

const LIMIT = 4_096;
const OTHERS = 0o007;

/** Read anew each time, so that it can be changed. @throws RunlockError `config` */
function readSecret(file: string, uid: number): Buffer {
  const bytes = readTrusted(file, { uid, limit: LIMIT });
  if ((statSync(file).mode & OTHERS) !== 0)
    throw new RunlockError('config', `${file}: everybody can read this secret; run chmod o= ${file}`);
  const end = bytes.at(-1) === LINE_BREAK ? bytes.length - 1 : bytes.length;
  if (end === 0) throw new RunlockError('config', `${file}: it is empty; write the secret there`);
  return bytes.subarray(0, end);
}

const LINE_BREAK = 10;
