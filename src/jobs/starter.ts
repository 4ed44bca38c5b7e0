/**
 * Starts a job: request, lists of targets, and at last its first stage. Keeps nothing in memory: each step follows from
 * what stands in Consul, so a lost answer, a starter that died and the same start again are one and the same.
 */
import { createHash } from 'node:crypto';
import { RunlockError } from '../errors.ts';
import type { SeenKey } from '../lock/transactions.ts';
import { contend } from './contend.ts';
import type { Contender, Plan } from './contend.ts';
import { MOST_TARGETS } from './documents.ts';
import type { Spec, Targets } from './documents.ts';
import { jobText } from './keys.ts';
import type { JobRef } from './keys.ts';
import { checkTally, jobIn, jobReadRule, jobWriteRule, placeOf, requestRule, seenIn } from './read.ts';
import { MOST_CHUNKS, MOST_STAGES, decodeSpec, encodeTargets } from './records.ts';
import { NO_STAGE, firstTally, ready } from './stage.ts';
import { readTogether } from './together.ts';
import { create, fill, markReady } from './transactions.ts';
import type { SeenJob } from './transactions.ts';

export type Target = Targets['targets'][number];

export interface NewRequest {
  readonly ref: JobRef;
  readonly spec: Omit<Spec, 'filled' | 'chunks' | 'stages' | 'digest'>;
  /** Each node once; the order is part of the request. */
  readonly targets: readonly Target[];
  /** The stage of the job that this one retries, as it was read: it was over. */
  readonly retried?: SeenKey;
}

/** The job as it stands. `isNew`: this start wrote its request; false: it was there before. */
export interface Started {
  readonly job: SeenJob;
  readonly isNew: boolean;
}

export interface Starter extends Omit<Contender, 'rule'> {
  readonly prefix: string;
  /** Called with the lists of targets that are written, and how many there are. */
  readonly onFilled?: (filled: number, chunks: number) => void;
}

/**
 * Starts a job, or goes on with one that was begun by the same request.
 * @throws RunlockError `usage`: another request has this name, or it has too many targets or stages; `refused`: the job
 * to retry has changed, or this one was removed meanwhile; `forbidden`, naming the rule; `incompatible`.
 */
export async function startJob(starter: Starter, request: NewRequest): Promise<Started> {
  const { prefix, onFilled } = starter;
  const { ref, retried } = request;
  const lists = listsOf(request.targets);
  const spec = toSpec(request, lists);
  const place = placeOf(prefix, spec.home, ref);
  const rule = `${place.requests.rule}, ${jobWriteRule(prefix, spec.home, ref.principal)}`;
  const offline = request.targets.filter(([, stage]) => stage === NO_STAGE).length;
  let wasThere = false;
  const plan = async (): Promise<Plan<Started>> => {
    const job = await readJob(starter, ref, { home: spec.home, expected: wasThere });
    if (!job) {
      if (wasThere) throw new RunlockError('refused', `job ${jobText(ref)} was removed while it was written`);
      if (retried && (await isChanged(starter, retried)))
        throw new RunlockError('refused', `the job to retry has changed; look at it and try again`);
      const tally = firstTally(spec, offline);
      const steps = create({ ...place, spec, tally, ...(retried && { retried }) });
      return { kind: 'send', steps, others: 1 };
    }
    wasThere = true;
    checkSame(ref, spec, job.spec.value);
    const { filled } = job.spec.value;
    const { stage, tally } = job;
    if (stage.value.kind !== 'fill')
      return { kind: 'over', value: { job, isNew: job.spec.value.nonce === spec.nonce } };
    onFilled?.(filled, lists.length);
    const next = lists[filled];
    const begun = ready(stage.value, tally.value, {
      rules: job.spec.value,
      nowMs: starter.deps.clock.now(),
    });
    const steps = next ? fill(job, next) : markReady(job, begun);
    return { kind: 'send', steps, others: 1 };
  };
  return contend({ ...starter, rule }, plan);
}

/** The whole job, or undefined if there is no such request. @throws RunlockError as `lookAt`. */
export async function readJob(
  { consul, prefix, signal }: Pick<Starter, 'consul' | 'prefix' | 'signal'>,
  ref: JobRef,
  { home, expected = true }: { readonly home: string; readonly expected?: boolean },
): Promise<SeenJob | undefined> {
  const { requests, keys, id } = placeOf(prefix, home, ref);
  const rule = jobReadRule(prefix, home);
  const found = await readTogether(
    consul,
    [
      { key: requests.spec(id), rule: requestRule(prefix), absent: !expected },
      { key: keys.stage, rule, absent: !expected },
      { key: keys.tally, rule, absent: !expected },
    ],
    { signal },
  );
  const spec = seenIn(found, requests.spec(id), decodeSpec);
  if (!spec) return undefined;
  if (spec.value.home !== home)
    throw new RunlockError(
      'usage',
      `job ${jobText(ref)} exists already, for ${spec.value.home}; choose another id`,
    );
  const job = jobIn(found, { ...placeOf(prefix, home, ref), spec }, ref);
  checkTally(job);
  return job;
}

async function isChanged(
  { consul, signal }: Pick<Starter, 'consul' | 'signal'>,
  { key, index }: SeenKey,
): Promise<boolean> {
  const { entry } = await consul.get(key, { signal });
  return (entry?.modifyIndex ?? 0) !== index;
}

/** Lists of as many targets as one transaction writes, with their pointers. */
function listsOf(targets: readonly Target[]): Targets[] {
  const chunks = Math.ceil(targets.length / MOST_TARGETS);
  return Array.from({ length: chunks }, (_, i) => ({
    targets: targets.slice(i * MOST_TARGETS, (i + 1) * MOST_TARGETS),
  }));
}

function toSpec({ ref, spec, targets }: NewRequest, lists: readonly Targets[]): Spec {
  const usage = (why: string) => new RunlockError('usage', `job ${jobText(ref)}: ${why}`);
  if (targets.length === 0) throw usage('it has no targets');
  if (lists.length > MOST_CHUNKS)
    throw usage(`${targets.length} targets; at most ${MOST_CHUNKS * MOST_TARGETS} are allowed`);
  if (new Set(targets.map(([node]) => node)).size !== targets.length) throw usage('it names a node twice');
  const count = Math.max(1, ...targets.map(([, stage]) => stage + 1));
  if (count > MOST_STAGES) throw usage(`${count} stages; at most ${MOST_STAGES} are allowed`);
  const stages = Array.from({ length: count }, (_, k) => targets.filter(([, stage]) => stage === k).length);
  return { ...spec, stages, digest: digestOf(lists), chunks: lists.length, filled: 0 };
}

/** Of names in any order; to compare what was asked. */
export const namesDigest = (names: readonly string[]): string =>
  createHash('sha256')
    .update([...names].sort().join('\n'))
    .digest('base64url');

const digestOf = (lists: readonly Targets[]): string =>
  createHash('sha256')
    .update(lists.map((list) => encodeTargets(list)).join('\n'))
    .digest('base64url');

/** What may differ when the same start is given again. */
const OWN = ['nonce', 'filled', 'by', 'at', 'until', 'reason', 'chain'];

/** @throws RunlockError `usage`: another request has this name. */
function checkSame(ref: JobRef, wanted: Spec, there: Spec): void {
  const names = [...new Set([...Object.keys(wanted), ...Object.keys(there)])] as (keyof Spec)[];
  const other = names.find(
    (name) => !OWN.includes(name) && canonical(wanted[name]) !== canonical(there[name]),
  );
  if (other === undefined) return;
  const what = other === 'digest' || other === 'stages' || other === 'chunks' ? 'targets' : other;
  throw new RunlockError(
    'usage',
    `job ${jobText(ref)} exists already, with other ${what}; choose another id, or start it as it was`,
  );
}

/** Objects with the same fields in whatever order are the same. */
const canonical = (value: unknown): string =>
  JSON.stringify([value], (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
