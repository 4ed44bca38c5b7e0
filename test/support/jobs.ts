// A job of two stages, web01 first, then web02 and web03, as tests write and read it.
import type { Spec, TargetDocument } from '../../src/jobs/documents.ts';
import { jobKeys, requestKeys } from '../../src/jobs/keys.ts';
import { decodeSpec, decodeStage, decodeTally, decodeTarget } from '../../src/jobs/records.ts';
import type { JobPlace, Seen, SeenJob, SeenTarget } from '../../src/jobs/transactions.ts';

export const at = '2026-03-01T12:00:00.000Z';
export const nowMs = Date.parse(at);

export const spec: Spec = {
  ...{ nonce: 'n1', task: 'chef', params: {}, home: 'prod/web', stages: [1, 2], digest: 'd', chunks: 2 },
  ...{ filled: 0, maxFailures: 0, offline: 'skip', pauseMs: 0, until: '2026-03-01T16:00:00.000Z' },
  ...{ by: 'ann@ci', at },
};

export const lists = [
  { targets: [['web01', 0]] },
  {
    targets: [
      ['web02', 1],
      ['web03', 1],
      ['web04', -1],
    ],
  },
] as const;

export function place(prefix: string, id = 'deploy-1'): JobPlace {
  const ref = { principal: 'ops', id };
  return { id, keys: jobKeys(prefix, spec.home, ref), requests: requestKeys(prefix, ref.principal) };
}

export interface Kept {
  readonly value: string;
  readonly index: number;
}

/** Undefined: there is no such key. */
export type Lookup = (key: string) => Kept | undefined;

function seen<T>(find: Lookup, key: string, decode: (stored: { key: string; value: string }) => T): Seen<T> {
  const found = find(key);
  if (!found) throw new Error(`${key} is not there`);
  return { value: decode({ key, value: found.value }), index: found.index };
}

export const seenJob = (job: JobPlace, find: Lookup): SeenJob => ({
  ...job,
  spec: seen(find, job.requests.spec(job.id), decodeSpec),
  stage: seen(find, job.keys.stage, decodeStage),
  tally: seen(find, job.keys.tally, decodeTally),
});

export function seenTarget(
  job: JobPlace,
  find: Lookup,
  { node = 'web01', targetStage = 0 } = {},
): SeenTarget {
  const document: Seen<TargetDocument> | undefined = find(job.keys.node(node))
    ? seen(find, job.keys.node(node), decodeTarget)
    : undefined;
  return { ...seenJob(job, find), node, targetStage, ...(document && { document }) };
}
