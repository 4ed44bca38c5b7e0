/** One look at what a request asks of one node: everything as it was at one moment (docs/protocol.md, "Jobs"). */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Pointer, Spec } from './documents.ts';
import { jobKeys, jobText, requestKeys } from './keys.ts';
import type { JobRef } from './keys.ts';
import {
  decodePointer,
  decodeSpec,
  decodeStage,
  decodeTally,
  decodeTarget,
  decodeTargets,
} from './records.ts';
import { readTogether } from './together.ts';
import type { Wanted } from './together.ts';
import type { JobPlace, Seen, SeenJob, SeenTarget } from './transactions.ts';

export interface JobReader {
  readonly consul: Consul;
  readonly prefix: string;
  readonly ref: JobRef;
}

export interface Asked {
  readonly node: string;
  /** Where an earlier look found the job: saves a read, and finds it without its pointer. */
  readonly known?: Known;
}

export interface Known {
  readonly home: string;
  /** The list of targets that names the node. */
  readonly chunk: number;
}

export type Look =
  /** There is no such request: a read of its key said so. `pointer`: as it was seen before that. */
  | { readonly kind: 'gone'; readonly pointer?: SeenKey }
  /** The request does not name this node: the pointer is an old one, or not the principal's word. */
  | { readonly kind: 'unmeant'; readonly job: SeenJob; readonly pointer?: SeenKey }
  /** The request is there, but its job is not: somebody has deleted it by hand. `why`: for people, with what to do. */
  | { readonly kind: 'broken'; readonly why: string; readonly pointer?: SeenKey }
  | {
      readonly kind: 'target';
      readonly target: SeenTarget;
      readonly known: Known;
      readonly pointer?: SeenKey;
    };

export const requestRule = (prefix: string): string =>
  `key_prefix "${prefix}/.requests/" { policy = "read" }`;
/** To look at the jobs of a group: of all principals. */
export const jobReadRule = (prefix: string, home: string): string =>
  `key_prefix "${prefix}/${home}/.jobs/" { policy = "read" }`;
/** To write those of one principal: with a rule for all of them it could end another's. */
export const jobWriteRule = (prefix: string, home: string, principal: string): string =>
  `key_prefix "${prefix}/${home}/.jobs/${principal}/" { policy = "write" }`;

/** Where the keys of a job are. */
export const placeOf = (prefix: string, home: string, ref: JobRef): JobPlace => ({
  id: ref.id,
  keys: jobKeys(prefix, home, ref),
  requests: requestKeys(prefix, ref.principal),
});

/** Spec and home may change between two reads only if the job was removed and its name used again. */
const TRIES = 5;

/**
 * Reads pointer, request, the node's list of targets, stage, tally and the node's document.
 * @throws RunlockError `forbidden`, naming the rule: what may not be read never counts as gone; `incompatible`: a
 * document can't be read; the message names the key.
 */
export async function lookAt(
  { consul, prefix, ref }: JobReader,
  { node, known }: Asked,
  options: RetryOptions,
): Promise<Look> {
  const requests = requestKeys(prefix, ref.principal);
  const [pointerKey, specKey] = [requests.pointer(node, ref.id), requests.spec(ref.id)];
  const rule = requestRule(prefix);
  const asked: Wanted[] = [
    { key: pointerKey, rule },
    { key: specKey, rule },
  ];
  let now = known;
  let hasDocument = false;
  for (let tries = 1; tries <= TRIES; tries += 1) {
    const place = now && placeOf(prefix, now.home, ref);
    const listKey = now && requests.targets(ref.id, now.chunk);
    const own = now && jobReadRule(prefix, now.home);
    const found = await readTogether(
      consul,
      [
        ...asked,
        ...(place && own !== undefined && listKey !== undefined
          ? [
              { key: listKey, rule },
              { key: place.keys.stage, rule: own },
              { key: place.keys.tally, rule: own },
              { key: place.keys.node(node), rule: own, absent: !hasDocument },
            ]
          : []),
      ],
      options,
    );
    const pointer = found.get(pointerKey);
    const seenPointer = pointer && { pointer: { key: pointerKey, index: pointer.modifyIndex } };
    const spec = seenIn(found, specKey, decodeSpec);
    if (!spec) return { kind: 'gone', ...seenPointer };
    const hint = readPointer(pointer);
    const where = { home: spec.value.home, chunk: now?.chunk ?? hint?.chunk ?? 0 };
    if (!place || !listKey || now?.home !== where.home) {
      now = where;
      continue;
    }
    hasDocument = found.has(place.keys.node(node));
    const missing = missingIn(found, place, ref);
    if (missing !== undefined) return { kind: 'broken', why: missing, ...seenPointer };
    const job = jobIn(found, { ...place, spec }, ref);
    checkTally(job);
    const targetStage = stageOf(found.get(listKey), { node, spec: spec.value });
    if (targetStage === undefined) {
      // The list that an earlier look knew may be that of a job that is gone.
      if (hint && hint.chunk !== where.chunk) {
        now = { ...where, chunk: hint.chunk };
        continue;
      }
      return { kind: 'unmeant', job, ...seenPointer };
    }
    const document = seenIn(found, place.keys.node(node), decodeTarget);
    const target = { ...job, node, targetStage, ...(document && { document }) };
    return { kind: 'target', target, known: where, ...seenPointer };
  }
  throw new RunlockError('refused', `job ${jobText(ref)} keeps changing; try again`);
}

/** A pointer that can't be read is a hint that says nothing: what counts is the list of targets. */
function readPointer(entry: Entry | undefined): Pointer | undefined {
  try {
    return entry && decodePointer(entry);
  } catch {
    return undefined;
  }
}

/** The node's stage, if the list names it, and the list is one of those that the request says are written. */
function stageOf(
  entry: Entry | undefined,
  { node, spec }: { readonly node: string; readonly spec: Spec },
): number | undefined {
  if (!entry) return undefined;
  const stage = decodeTargets(entry).targets.find(([name]) => name === node)?.[1];
  return stage !== undefined && stage < spec.stages.length ? stage : undefined;
}

/** What was read of a key. */
export function seenIn<T>(
  found: ReadonlyMap<string, Entry>,
  key: string,
  decode: (entry: Entry) => T,
): Seen<T> | undefined {
  const entry = found.get(key);
  return entry && { value: decode(entry), index: entry.modifyIndex };
}

/** Stage and tally are written and removed together with the request, by every runlock. Undefined: both are there. */
function missingIn(found: ReadonlyMap<string, Entry>, { id, keys, requests }: JobPlace, ref: JobRef) {
  const key = [keys.stage, keys.tally].find((each) => !found.has(each));
  if (key === undefined) return undefined;
  return `${key} is missing, though job ${jobText(ref)} is there: somebody deleted it by hand; to remove what is left of the job: 'consul kv delete -recurse ${keys.prefix}', then 'consul kv delete ${requests.spec(id)}'`;
}

/** @throws RunlockError `incompatible`: the stage or the tally is missing, or can't be read. */
export function jobIn(
  found: ReadonlyMap<string, Entry>,
  place: JobPlace & Pick<SeenJob, 'spec'>,
  ref: JobRef,
): SeenJob {
  const stage = seenIn(found, place.keys.stage, decodeStage);
  const tally = seenIn(found, place.keys.tally, decodeTally);
  if (!stage || !tally) throw new RunlockError('incompatible', missingIn(found, place, ref) ?? '');
  return { ...place, stage, tally };
}

/** @throws RunlockError `incompatible`: a tally of other stages than the request's. */
export function checkTally({ keys, spec, tally, stage }: SeenJob): void {
  const { length } = spec.value.stages;
  const isFitting =
    tally.value.stages.length === length && (stage.value.kind !== 'open' || stage.value.stage < length);
  if (isFitting) return;
  throw new RunlockError(
    'incompatible',
    `${keys.tally}: tally and stage are of another job than its request; remove what is left of the job`,
  );
}
