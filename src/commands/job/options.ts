/** `runlock job`: which nodes, in which order, and with which limits. All of it is of one start, so only the line says it. */
import type { Option } from 'commander';
import { checked, onLineAlone, option, repeatedOption } from '../../cli/option.ts';
import {
  parseDuration,
  parseFlag,
  parseGroup,
  parseNode,
  parsePositiveDuration,
  usage,
  wholeNumber,
} from '../../cli/values.ts';
import type { FromJob, Wanted } from '../../jobs/find.ts';
import { isJobId, isPrincipal } from '../../jobs/keys.ts';
import type { JobRef } from '../../jobs/keys.ts';
import type { Amount } from '../../jobs/plan.ts';
import { FINAL_STATES, OPEN_STATES } from '../../jobs/documents.ts';
import type { Spec } from '../../jobs/documents.ts';
import type { ShownState } from '../../jobs/stage.ts';
import { isName } from '../../text/words.ts';
import { namedOption } from '../param-option.ts';
import type { Rollout } from './request.ts';

export interface TargetValues {
  readonly node?: readonly string[];
  readonly service?: string;
  readonly tag?: readonly string[];
  readonly meta?: ReadonlyMap<string, string>;
  readonly filter?: string;
  readonly group?: string;
  readonly fromJob?: (principal: string) => FromJob;
}

export const targetOptions = (): readonly Option[] =>
  [
    nodesOption(),
    option('--service <name>', 'with start: the nodes that have this service', parseService),
    repeatedOption(
      '--tag <tag>',
      'with start: whose service has this tag; repeat for several',
      nonEmpty('a tag'),
    ),
    namedOption(
      '--meta <key=value>',
      'with start: the nodes with this metadata; repeat for several',
      'rack=r4',
    ),
    option(
      '--filter <expression>',
      "with start: the nodes, or with --service the instances, that this expression of Consul's selects",
      nonEmpty('an expression'),
    ),
    option('--group <path>', 'with start: the nodes that have run in this group', parseGroup),
    option(
      '--from-job <job[:state,...]>',
      'with start: the targets of this job, or those in these states',
      parseFromJob,
    ),
  ].map(onLineAlone);

/** Undefined: the line names none. @throws RunlockError `usage` */
export function wantedOf(
  { node, service, tag, meta, filter, group, fromJob }: TargetValues,
  principal: string,
): Wanted | undefined {
  if (tag && service === undefined) throw usage('--tag needs --service');
  const wanted: Wanted = {
    ...(node && { nodes: node }),
    ...(service !== undefined && { service }),
    ...(tag && { tags: tag }),
    ...(meta && { meta }),
    ...(filter !== undefined && { filter }),
    ...(group !== undefined && { group }),
    ...(fromJob && { from: fromJob(principal) }),
  };
  return Object.keys(wanted).length === 0 ? undefined : wanted;
}

export interface RolloutValues {
  readonly canary?: Amount;
  readonly steps?: readonly Amount[];
  readonly pause?: number;
  readonly maxRunning?: Amount;
  readonly maxFailures?: number;
  readonly offline?: Spec['offline'];
  readonly splay?: number;
  readonly noop: boolean;
}

export const rolloutOptions = (): readonly Option[] =>
  [
    option('--canary <n|n%>', 'with start: so many nodes first, then the others', parseAmount),
    option(
      '--steps <n|n%,...>',
      'with start: then up to so many of all nodes, step by step, then all',
      parseSteps,
    ),
    option('--pause <duration>', 'with start: how long to wait between two stages', parseDuration),
    option('--max-running <n|n%>', 'with start: run on at most so many nodes at once', parseAmount),
    option(
      '--max-failures <n>',
      'with start: stop after more failures than this (default: 0)',
      wholeNumber(0, 100_000),
    ),
    option(
      '--offline <wait|skip|fail>',
      'with start: what to do with nodes without an agent (default: start nothing)',
      parseOffline,
    ),
    option(
      '--splay <duration>',
      'with start: spread the starts of a stage over this long',
      parsePositiveDuration,
    ),
    option('--noop', "with start: only try: run the tasks' noop commands", parseFlag, false),
  ].map(onLineAlone);

export const rolloutOf = (values: RolloutValues): Rollout => ({
  ...(values.canary && { canary: values.canary }),
  ...(values.steps && { steps: values.steps }),
  ...(values.pause !== undefined && { pauseMs: values.pause }),
  ...(values.maxRunning && { maxRunning: values.maxRunning }),
  ...(values.maxFailures !== undefined && { maxFailures: values.maxFailures }),
  ...(values.offline && { offline: values.offline }),
  ...(values.splay !== undefined && { splayMs: values.splay }),
  ...(values.noop && { noop: true }),
});

function nodesOption(): Option {
  const made = option('--node <name,...>', 'with start: the nodes, with commas; may be repeated', parseNodes);
  const parse = checked(parseNodes, made);
  return made.argParser((text, before: readonly string[] | undefined) => [
    ...new Set([...(before ?? []), ...parse(text)]),
  ]);
}

const parseNodes = (text: string): readonly string[] => text.split(',').map(parseNode);

function parseService(text: string): string {
  if (isName(text)) return text;
  throw usage("not a service name; use letters, digits, '.', '_' and '-'");
}

const nonEmpty = (what: string) => (text: string) => {
  if (text.trim() === '' || text.length > 1_000) throw usage(`write ${what}, at most 1000 characters`);
  return text;
};

function parseAmount(text: string): Amount {
  const [, digits = '', sign] = /^(\d{1,6})(%?)$/.exec(text) ?? [];
  const number = Number(digits);
  if (digits === '' || number < 1 || (sign === '%' && number > 100))
    throw usage('must be a whole number from 1, or a percentage from 1% to 100%');
  return sign === '%' ? { kind: 'percent', percent: number } : { kind: 'count', count: number };
}

const MOST_STEPS = 50;

function parseSteps(text: string): readonly Amount[] {
  const steps = text.split(',').map((part) => parseAmount(part.trim()));
  if (steps.length > MOST_STEPS) throw usage(`too many steps; at most ${MOST_STEPS}`);
  for (const kind of ['count', 'percent'] as const) {
    const sizes = steps.flatMap((step) =>
      step.kind !== kind ? [] : step.kind === 'count' ? step.count : step.percent,
    );
    if (sizes.some((size, i) => size <= (sizes[i - 1] ?? 0)))
      throw usage('each step has to be larger than the one before, as in 10%,50%');
  }
  return steps;
}

function parseOffline(text: string): Spec['offline'] {
  if (text === 'wait' || text === 'skip' || text === 'fail') return text;
  throw usage('write wait, skip or fail');
}

/** What `job show` calls the states of a target. */
const STATES: readonly ShownState[] = [...FINAL_STATES, ...OPEN_STATES, 'queued', 'not-started'];

function parseFromJob(text: string): (principal: string) => FromJob {
  const [name = '', list, ...more] = text.split(':');
  const states = list === undefined ? [] : list.split(',');
  const odd = states.find((state) => !(STATES as readonly string[]).includes(state));
  if (more.length > 0 || odd === '') throw usage('write JOB or JOB:STATE,…, as in deploy-42:failed,lost');
  if (odd !== undefined) throw usage(`'${odd}' is not a state of a target; use ${STATES.join(', ')}`);
  const ref = jobNamed(name, '');
  if (!ref) throw usage(JOB_NAMES);
  return (principal) => ({
    ref: { ...ref, principal: ref.principal || principal },
    states: states as ShownState[],
  });
}

const JOB_NAMES = 'not a job; write its id, or PRINCIPAL/ID';

/** `ops/deploy-42`, or `deploy-42` of the principal. Undefined: it is not the name of a job. */
export function jobNamed(name: string, principal: string): JobRef | undefined {
  const [first = '', second, ...more] = name.split('/');
  const ref = second === undefined ? { principal, id: first } : { principal: first, id: second };
  const isGood = more.length === 0 && (second === undefined || isPrincipal(first)) && isJobId(ref.id);
  return isGood ? ref : undefined;
}
