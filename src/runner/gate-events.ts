/** Events of `exec` about the gate and about maintenance. */
import type { Deps } from '../platform/deps.ts';
import type { RunEvent } from '../events/events.ts';
import type { Verdict } from '../gate/decide.ts';
import { describeClosed, describeNeed } from '../gate/describe.ts';
import type { Exited } from '../gate/exit.ts';
import type { Found } from '../gate/keep-out.ts';
import type { TakenOut } from '../gate/maintenance.ts';
import { assertNever } from '../errors.ts';

interface Who {
  readonly node: string;
  readonly run: string;
}

/** For a gate that was still closed at the end of the wait. */
export function busyGateEvent(
  verdicts: readonly Verdict[],
  { group, node, run }: Who & { readonly group: string },
): RunEvent {
  const services = verdicts.filter(({ open }) => !open).map(({ service, offline }) => ({ service, offline }));
  const detail = { closed: describeClosed(verdicts, node) };
  return { event: 'busy', group, node, run, why: 'gate', services, detail };
}

export function emitEntered({ emit }: Deps, taken: readonly TakenOut[], { node, run }: Who): void {
  for (const { scope, service, how, reason } of taken)
    emit({ event: 'maintenance-on', node, run, scope, service, how, detail: { reason } });
}

/** Reports what was found back in service while the command ran. */
export function emitFound({ emit }: Deps, found: Found, { node, run }: Who): void {
  const lost = { event: 'maintenance-lost', node, run, scope: 'service' } as const;
  switch (found.kind) {
    case 'again':
      for (const service of new Set(found.taken.map((mode) => mode.service)))
        emit({ ...lost, service, how: found.kind });
      return;
    case 'closed': {
      const { kind: how, service, closed } = found;
      emit({ ...lost, service, how, detail: { closed: describeClosed(closed, node) } });
      return;
    }
    case 'by-hand':
      emit({ ...lost, service: found.service, how: found.kind });
      return;
    default:
      assertNever(found);
  }
}

/** `wentOut`: this run itself had taken the node out of service. */
export function emitEnded(
  { emit }: Deps,
  { ended, foreign, kept }: Extract<Exited, { kind: 'done' }>,
  { node, run, prefix, wentOut }: Who & { readonly prefix: string; readonly wentOut: boolean },
): void {
  for (const { scope, service } of ended) emit({ event: 'maintenance-off', node, run, scope, service });
  for (const one of kept) {
    const { scope, service } = one.mode;
    const detail = { need: describeNeed(one, prefix), wentOut, isReadable: one.by.mark !== undefined };
    emit({ event: 'maintenance-kept', node, run, scope, service, by: one.by.run, detail });
  }
  for (const { scope, service, reason } of foreign)
    emit({ event: 'maintenance-foreign', node, run, scope, service, reason });
}
