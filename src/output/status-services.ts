/** The services of `runlock status` as text. */
import { paint } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import { moreText } from './more.ts';
import { renderProblems } from './status.ts';
import type { RenderOptions } from './status.ts';
import { renderTable } from './table.ts';
import type { ServiceView } from '../view/report.ts';
import { wrapLines } from '../text/wrap.ts';

/** Show at most this many; `--json` shows all. */
const SHOWN = 20;

export function renderServices(services: readonly ServiceView[], options: RenderOptions): string {
  return services.map((view) => `\n${renderService(view, options).join('\n')}\n`).join('');
}

function renderService(view: ServiceView, options: RenderOptions): string[] {
  const { service, offline, problem } = view;
  const rows = offline.slice(0, SHOWN).map(({ node, id, why }) => ({
    cells: [id, node, 'offline', why],
    style: 'yellow' as const,
  }));
  const head = ['INSTANCE', 'NODE', 'STATE', 'WHY'];
  return [
    paint(`service ${visible(service)}`, 'bold', options.color),
    ...(rows.length > 0 ? renderTable(head, rows, options) : []),
    ...moreText(offline.length - rows.length),
    ...renderProblems(problem === undefined ? [] : [problem], options),
    ...gateTexts(view).flatMap((text) =>
      wrapLines(`gate: ${text}`, options.columns, { lead: '  ', hang: 4 }),
    ),
  ];
}

function gateTexts({ openFor, closedFor, gates }: ServiceView): string[] {
  const count = openFor.length + closedFor.length;
  const texts = gates.slice(0, SHOWN).map(({ open, nodes, why }) => {
    const whom = nodes.length === count && count > 1 ? 'every node' : names(nodes);
    return `${whom === '' ? '' : `${open ? 'open' : 'closed'} for ${whom}: `}${visible(why)}`;
  });
  const more = gates.slice(SHOWN).reduce((sum, { nodes }) => sum + nodes.length, 0);
  return more === 0 ? texts : [...texts, `${more} more nodes; --json has them all`];
}

function names(all: readonly string[]): string {
  const more = all.length - SHOWN;
  return visible(all.slice(0, SHOWN).join(', ')) + (more > 0 ? ` and ${more} more` : '');
}
