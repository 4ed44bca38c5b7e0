/** `runlock gate`: the verdict or what was done → stdout and exit status. */
import type { Asked } from '../../cli/command.ts';
import { EXIT_CLOSED, assertNever } from '../../errors.ts';
import { describeNeed, describeVerdict } from '../../gate/describe.ts';
import type { Verdict } from '../../gate/decide.ts';
import { renderGate } from '../../output/gate.ts';
import type { Emit } from '../../events/events.ts';
import { visible } from '../../text/visible.ts';
import type { Platform } from '../platform.ts';
import { print } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import type { ConsulWays } from '../with-consul.ts';
import { gate } from './gate.ts';
import type { GateDeps, GateOptions, GateResult } from './gate.ts';

export type GateAsked = Asked<GateOptions & { readonly json: boolean; readonly agent?: string }>;

export function run({ common, options }: GateAsked, platform: Platform): Promise<number> {
  const { agent, json } = options;
  return withConsul({ common, agent, stoppable: true }, platform, async (ways) => {
    const result = await gate(depsFor(ways, platform), options, ways.signal);
    await print(platform, {
      json,
      data: toJson(options.action, result),
      text: ({ color }) => toText(result, color),
      isProse: true,
    });
    emitStays(result, ways.deps.emit, options.prefix);
    return result.kind === 'closed' ? EXIT_CLOSED : 0;
  });
}

function depsFor({ consul, agent, deps }: ConsulWays, { env, newRunId }: Platform): GateDeps {
  // Inside a run, maintenance belongs to that run.
  const run = env['RUNLOCK_RUN_ID'];
  const isOne = run !== undefined && /^[\w-]{1,64}$/.test(run);
  const { RUNLOCK_RUN_GROUP: groups, RUNLOCK_RUN_NODE: node } = env;
  return {
    ...deps,
    consul,
    run: isOne ? run : newRunId(),
    ...(agent && { agent }),
    ...(isOne &&
      groups !== undefined &&
      node !== undefined && { inside: { node, groups: groups.split(',') } }),
  };
}

/** What `gate --json` prints; `open`: whether the node may go, or has gone. */
function toJson(action: string, result: GateResult): object {
  const { kind, node } = result;
  const head = { action, node };
  if (kind === 'left') {
    const { ended, stays, kept } = result;
    const needed = kept.map(({ mode, by }) => ({ ...mode, by: by.run }));
    return { ...head, ended, stays, ...(needed.length > 0 && { needed }) };
  }
  const open = kind !== 'closed';
  return {
    ...head,
    open,
    services: result.verdicts,
    ...(kind === 'entered' && { maintenance: result.taken }),
  };
}

function toText(result: GateResult, color: boolean): string {
  const { node } = result;
  switch (result.kind) {
    case 'open':
    case 'closed':
      return renderVerdicts(result.verdicts, node, color);
    case 'entered':
      return `${visible(sayEntered(result))}\n`;
    case 'left':
      return `${visible(sayLeft(result))}\n`;
    default:
      return assertNever(result);
  }
}

function renderVerdicts(verdicts: readonly Verdict[], node: string, color: boolean): string {
  if (verdicts.length === 0) return `${visible(node)} has no services, so none go offline with it\n`;
  const lines = verdicts.map((verdict) => ({ ...verdict, said: describeVerdict(verdict, node) }));
  return renderGate(lines, color);
}

function sayEntered({ node, taken }: Extract<GateResult, { kind: 'entered' }>): string {
  if (taken.length === 0) return `${node} has none of these services: nothing to take out of service`;
  const parts = taken.map(
    ({ how, reason, ...mode }) => `${nameOf(mode)} (${how === 'set' ? reason : `already: ${reason}`})`,
  );
  return `${node} is out of service: ${parts.join(', ')}`;
}

function sayLeft({ node, ended, stays, kept }: Extract<GateResult, { kind: 'left' }>): string {
  const names = ended.map(nameOf).join(', ');
  if (ended.length > 0) return `${node} is back from maintenance: ${names}`;
  if (kept.some(({ by }) => !by.mark))
    return `${node} stays in maintenance: can't tell whether a run needs it`;
  if (kept.length > 0) return `${node} stays in maintenance: an active run needs it`;
  return stays.length > 0
    ? `runlock has put nothing on ${node} into maintenance`
    : `${node} is not in maintenance`;
}

const nameOf = ({ scope, service }: { scope: string; service: string }) =>
  scope === 'node' ? 'the whole node' : service;

function emitStays(result: GateResult, emit: Emit, prefix: string): void {
  if (result.kind !== 'left') return;
  const { node } = result;
  for (const one of result.kept) {
    const { scope, service } = one.mode;
    const detail = { need: describeNeed(one, prefix), wentOut: true, isReadable: one.by.mark !== undefined };
    emit({ event: 'maintenance-kept', node, scope, service, by: one.by.run, detail });
  }
  for (const { scope, service, reason } of result.stays)
    emit({ event: 'maintenance-foreign', node, scope, service, reason });
}
