/** What `exec` says about the gate that it waits for, and about maintenance. */
import type { Deps } from '../../platform/deps.ts';
import type { Verdict } from '../../gate/decide.ts';
import { describeClosed, describeNeed, leaveHint, waitedFor } from '../../gate/describe.ts';
import type { Exited } from '../../gate/exit.ts';
import type { Found } from '../../gate/keep-out.ts';
import type { Mode, TakenOut } from '../../gate/maintenance.ts';
import { cut } from '../../text/style.ts';
import { formatAge } from '../../text/age.ts';
import { visible } from '../../text/visible.ts';
import { assertNever } from '../../errors.ts';
import type { Terminal } from '../../platform/terminal.ts';
import { sayLooks } from '../gate-progress.ts';

interface Who {
  readonly node: string;
  readonly run: string;
}

type Says = Deps & { readonly terminal?: Terminal };

/** Says for whom it waits, and draws the line of a terminal while it does; `quiet`: it does not wait. */
export function sayWaits(
  deps: Says,
  { node, run, quiet }: Who & { readonly quiet: boolean },
): { readonly look: (verdicts: readonly Verdict[]) => void; readonly end: () => void } {
  if (quiet) return { look: () => undefined, end: () => undefined };
  const say = sayLooks(deps, node, { run });
  const { terminal } = deps;
  return {
    look: (verdicts) => {
      say(verdicts);
      const peers = waitedFor(verdicts) || describeClosed(verdicts, node);
      const line = peers === '' ? '' : visible(`waiting at the gate for ${peers}`);
      terminal?.draw(cut(line, Math.max(1, terminal.columns() - 1)));
    },
    end: () => terminal?.draw(''),
  };
}

/** The gate was closed at the end of the wait. */
export function sayClosed(
  { log }: Deps,
  closed: readonly Verdict[],
  { group, node, run }: Who & { readonly group: string },
): void {
  const services = closed.filter(({ open }) => !open).map(({ service, offline }) => ({ service, offline }));
  const why = describeClosed(closed, node);
  log('warning', `busy: the gate is closed for ${node} (${why})`, {
    event: 'busy',
    group,
    node,
    run,
    why: 'gate',
    services,
  });
}

/** The gate closed while the run had its slot. */
export function sayGaveWay({ log }: Deps, closed: readonly Verdict[], { node, run }: Who): void {
  const why = describeClosed(closed, node);
  log('info', `${node} gives its slot back, for the gate is closed by now (${why})`, {
    event: 'gate-gave-way',
    node,
    run,
  });
}

/** The gate closed while the run waited in the queue, where it would be in the way of whoever it is closed for. */
export function sayLeftQueue({ log }: Deps, closed: readonly Verdict[], { node, run }: Who): void {
  const why = describeClosed(closed, node);
  log(
    'info',
    `${node} leaves the queue, for the gate is closed by now (${why}); it joins again when it is open`,
    {
      event: 'gate-left-queue',
      node,
      run,
    },
  );
}

export function sayEntered({ log }: Deps, taken: readonly TakenOut[], { node, run }: Who): void {
  for (const mode of taken) {
    const foreign = mode.how === 'foreign';
    const whose = foreign ? `somebody else's maintenance ("${mode.reason}"), which stays` : 'maintenance';
    const since = mode.how === 'adopted' ? ' since an earlier run' : '';
    log('info', `${placeOf(mode, node)} is in ${whose}${since}`, {
      event: 'maintenance-on',
      node,
      run,
      scope: mode.scope,
      service: mode.service,
      how: mode.how,
    });
  }
}

/** What was found in service while the command ran. */
export function sayFound({ log }: Deps, found: Found, { node, run }: Who): void {
  const say = (service: string, what: string) =>
    log('warning', `${service} on ${node} ${what}`, {
      ...{ event: 'maintenance-lost', node, run, scope: 'service', service, how: found.kind },
    });
  switch (found.kind) {
    case 'again':
      for (const service of new Set(found.taken.map((mode) => mode.service)))
        say(service, 'was registered anew while the command runs, and is in maintenance again');
      return;
    case 'closed':
      say(
        found.service,
        `was registered anew while the command runs, and is in service: its gate is closed by now (${describeClosed(found.closed, node)})`,
      );
      return;
    case 'by-hand':
      say(found.service, 'is in service while the command runs: somebody has ended its maintenance');
      return;
    default:
      assertNever(found);
  }
}

/** The command did well, and the slot is kept until its node's services are well too. */
export function sayWaitsForHealth(
  { log }: Deps,
  { node, run, withinMs, why }: Who & { readonly withinMs: number; readonly why: string },
): void {
  const message = `the command is done; ${node} keeps its slot until its services are healthy, ${formatAge(withinMs)} at most (${why})`;
  log('info', message, { event: 'waiting-for-health', node, run, withinMs, why });
}

/** `wentOut`: the run itself had gone out of service, so whoever reads its end takes the node to be back. */
export function sayEnded(
  { log }: Deps,
  { ended, foreign, kept }: Extract<Exited, { kind: 'done' }>,
  { node, run, prefix, wentOut }: Who & { readonly prefix: string; readonly wentOut: boolean },
): void {
  for (const mode of ended)
    log('info', `${placeOf(mode, node)} is out of maintenance`, {
      event: 'maintenance-off',
      node,
      run,
      scope: mode.scope,
      service: mode.service,
    });
  for (const one of kept)
    log(
      wentOut || !one.by.mark ? 'warning' : 'info',
      `${placeOf(one.mode, node)} stays in maintenance: ${describeNeed(one, prefix)}`,
      {
        event: 'maintenance-kept',
        node,
        run,
        scope: one.mode.scope,
        service: one.mode.service,
        by: one.by.run,
      },
    );
  for (const mode of foreign)
    log('info', `${placeOf(mode, node)} stays in somebody else's maintenance ("${mode.reason}")`, {
      event: 'maintenance-foreign',
      node,
      run,
      scope: mode.scope,
      service: mode.service,
      reason: mode.reason,
    });
}

/** Maintenance that runlock set, and that is not over: why, and what ends it. */
export function sayStays(
  { log }: Deps,
  { node, run, prefix, services, why }: Who & Pick<Stays, 'prefix' | 'services' | 'why'>,
): void {
  const named = services.join(',') || 'auto';
  log(
    'warning',
    `${node} stays in maintenance (${why}); its next good run with --service ${named} ends it, or '${leaveHint(prefix, services)}' on ${node}`,
    {
      event: 'maintenance-left',
      node,
      run,
    },
  );
}

interface Stays {
  readonly prefix: string;
  readonly services: readonly string[];
  readonly why: string;
}

const placeOf = ({ scope, service }: Mode, node: string) =>
  scope === 'node' ? node : `${service} on ${node}`;
