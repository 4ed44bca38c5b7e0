// One small job: what stands in Consul of it, its targets with their agents and runs, and all that may go wrong.
import type { Spec, TargetDocument } from '../../../src/jobs/documents.ts';
import { jobKeys, requestKeys } from '../../../src/jobs/keys.ts';
import {
  decodeSpec,
  decodeStage,
  decodeTally,
  decodeTarget,
  encodePointer,
  encodeSpec,
  encodeStage,
  encodeTally,
} from '../../../src/jobs/records.ts';
import { firstTally, ready } from '../../../src/jobs/stage.ts';
import type { RunStep } from '../../../src/lock/transactions.ts';

/** How often each may happen. `edit`: the principal asks for something else under the same name. `late`: a request arrives late or never, or its answer is lost. */
export const noFaults = {
  ...{ starterDies: 0, startAgain: 0, agentDies: 0, kill: 0, hostDies: 0, expire: 0, late: 0 },
  ...{ cancel: 0, restore: 0, refuse: 0, offline: 0, edit: 0 },
};
export type Faults = Record<keyof typeof noFaults, number>;

export type TxName =
  | 'create'
  | 'fill'
  | 'ready'
  | 'stop'
  | 'accept'
  | 'start'
  | 'end'
  | 'endByAgent'
  | 'lost'
  | 'offline'
  | 'drop';

/** What a broken runlock would do otherwise. */
export const CHANGES = [
  'stop after the failing end',
  'act before ready',
  'pointer goes with accept',
  'no ledger',
  'leave before destroying the session',
  'end over lost',
  'retry in place',
  'next stage is the one after',
  'no stage needs a good run',
  'ready without the tally',
] as const;
export type Change = (typeof CHANGES)[number];

export interface World {
  /** How many targets each stage has. */
  readonly stages: readonly number[];
  readonly maxFailures: number;
  readonly faults: Faults;
  /** Time passes: the request may end at any moment. */
  readonly expires: boolean;
  /** Begins with a job that is ready; else with a starter. */
  readonly fromReady: boolean;
  /** A second run of a target may begin while one lives: the node's own lock fails. */
  readonly double: boolean;
  readonly mutate?: (name: TxName, steps: readonly RunStep[]) => readonly RunStep[];
  readonly change?: Change;
}

/** What stands in Consul of the whole job; '' where there is no such key. */
export interface Whole {
  readonly spec: string;
  readonly stage: string;
  readonly tally: string;
}

export interface Job extends Whole {
  /** A starter is at work. */
  readonly starter: boolean;
  /** An operator wants to stop it. */
  readonly cancels: boolean;
  readonly isPast: boolean;
  readonly sent: readonly Sent[];
  readonly left: Faults;
  readonly snapshot?: Whole;
}

/** A request that has not arrived yet. */
export interface Sent {
  readonly tx: TxName;
  readonly steps: readonly RunStep[];
  /** What was asked when it was sent. */
  readonly spec?: string;
  /** The run whose claim it rests on, as it was when it died, and whether its session lasts as long as the request. */
  readonly run?: { readonly id: number; readonly returns: number; readonly hasSession: boolean };
}

/**
 * A run: `waits` for its slot, `asked`: its start is without an answer, `leaves`: its session is destroyed, `started`, its
 * command `runs`, `good` or `failed`: that ended, and is to be written.
 */
export interface Run {
  readonly at: 'waits' | 'asked' | 'leaves' | 'started' | 'runs' | 'good' | 'failed';
  readonly id: number;
  readonly hasSession: boolean;
  /** How often it took its lock back: each changes its claim. */
  readonly returns: number;
}

export interface Target {
  readonly stage: number;
  readonly pointer: string;
  readonly document: string;
  readonly host: boolean;
  readonly agent: boolean;
  readonly runs: readonly Run[];
  /** Commands that were started. */
  readonly commands: number;
  /** On the node's own disk. */
  readonly ledger: '' | 'started' | 'good' | 'failed';
  readonly sent: readonly Sent[];
  /** The list that names it is written. */
  readonly told: boolean;
  readonly snapshot?: Pick<Target, 'pointer' | 'document' | 'told'>;
}

export interface State {
  readonly job: Job;
  readonly targets: readonly Target[];
}

/** One step of the world, or the promise that it breaks. */
export interface Next {
  readonly label: string;
  readonly isFault: boolean;
  readonly state?: State;
  readonly broken?: string;
}

export const keys = jobKeys('p', 'g', { principal: 'ops', id: 'j' });
export const requests = requestKeys('p', 'ops');
export const place = { id: 'j', keys, requests };

/** No decision of a job rests on more than whether the request is past its end. */
export const AT = '2026-01-01T00:00:00.000Z';
export const nowOf = ({ isPast }: Pick<Job, 'isPast'>): number => Date.parse(AT) + (isPast ? 7_200_000 : 0);
export const UNTIL = '2026-01-01T01:00:00.000Z';

/** One target a list. */
export function specOf({ stages, maxFailures }: World): Spec {
  const chunks = stages.reduce((sum, size) => sum + size, 0);
  return {
    ...{ nonce: 'n', task: 't', params: {}, home: 'g', stages, digest: 'd', chunks, filled: 0, maxFailures },
    ...{ offline: 'skip', pauseMs: 0, until: UNTIL, by: 'b', at: AT },
  };
}

const decoded = new Map<string, unknown>();
/** Each document is read once. */
function memo<T>(value: string, decode: (stored: { key: string; value: string }) => T): T {
  const known = decoded.get(value);
  if (known !== undefined) return known as T;
  const record = decode({ key: 'k', value });
  decoded.set(value, record);
  return record;
}
export const specIn = ({ spec }: Whole) => memo(spec, decodeSpec);
export const stageIn = ({ stage }: Whole) => memo(stage, decodeStage);
export const tallyIn = ({ tally }: Whole) => memo(tally, decodeTally);
export const documentIn = ({ document }: Pick<Target, 'document'>): TargetDocument | undefined =>
  document === '' ? undefined : memo(document, decodeTarget);

export function initialState(world: World): State {
  const spec = specOf(world);
  const tally = firstTally(spec, 0);
  const filled = { ...spec, filled: spec.chunks };
  const begun = ready({ rev: 0, kind: 'fill' }, tally, { rules: spec, nowMs: Date.parse(AT) });
  const whole = world.fromReady
    ? { spec: encodeSpec(filled), stage: encodeStage(begun), tally: encodeTally(tally) }
    : { spec: '', stage: '', tally: '' };
  const job = {
    ...{ ...whole, starter: !world.fromReady, cancels: false, isPast: false, sent: [], left: world.faults },
  };
  const stages = world.stages.flatMap((size, stage) => Array.from({ length: size }, () => stage));
  const targets = stages.map((stage) => ({
    ...{ stage, pointer: world.fromReady ? POINTER : '', document: '' },
    ...{ host: true, agent: true, runs: [], commands: 0, ledger: '' as const, sent: [] },
    told: world.fromReady,
  }));
  return { job, targets };
}

/** As `fill` writes it. */
export const POINTER = encodePointer({ nonce: 'n', chunk: 0 });
