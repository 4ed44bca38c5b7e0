/** What a wait for the health gate says: for whom it waits, once for each set of peers. */
import type { Deps } from '../platform/deps.ts';
import type { Verdict } from '../gate/decide.ts';
import { describeClosed, waitedFor } from '../gate/describe.ts';

/** Hears every look of a wait. `who` goes into the fields of its lines. */
export function sayLooks(
  { log }: Pick<Deps, 'log'>,
  node: string,
  who: Readonly<Record<string, unknown>> = {},
): (verdicts: readonly Verdict[]) => void {
  let said = '';
  const unknown = new Set<string>();
  return (verdicts) => {
    for (const { service, because, open } of verdicts) {
      if (because !== 'nowhere' || !open || unknown.has(service)) continue;
      unknown.add(service);
      const message = `nobody offers the service ${service} yet, so nothing of it can go offline`;
      log('info', message, { event: 'gate-nowhere', node, service, ...who });
    }
    const closed = verdicts.filter(({ open }) => !open);
    // What a check prints can change with every run of it, and a line each would drown the rest.
    const now = closed
      .map(({ service, because, offline }) =>
        [service, because, ...offline.map((peer) => peer.node)].join(' '),
      )
      .join('; ');
    if (closed.length > 0 && now !== said)
      log(
        closed.some(({ because }) => because === 'too-many-here') ? 'warning' : 'info',
        sayClosed(closed, node),
        {
          event: 'gate-closed',
          node,
          ...who,
          services: closed.map(({ service, because, offline }) => ({ service, because, offline })),
        },
      );
    if (closed.length === 0 && said !== '')
      log('info', `the gate is open for ${node}`, { event: 'gate-open', node, ...who });
    said = now;
  };
}

/** Where no peer is the reason, the reason itself. */
function sayClosed(closed: readonly Verdict[], node: string): string {
  const peers = waitedFor(closed);
  const what =
    peers === ''
      ? describeClosed(closed, node)
      : `${closed.map(({ service }) => service).join(', ')}: ${peers}`;
  return `${node} waits for the gate of ${what}`;
}
