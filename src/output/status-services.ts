/** The services of `runlock status` as text. */
import { paint, visible } from '../output.ts';
import { moreText, renderTable } from './status.ts';
import type { RenderOptions } from './status.ts';
import type { ServiceView } from './views.ts';

/** As in a long queue; `--json` shows all. */
const SHOWN = 20;

export function renderServices(services: readonly ServiceView[], options: RenderOptions): string {
  return services.map((view) => `\n${renderService(view, options).join('\n')}\n`).join('');
}

function renderService(view: ServiceView, options: RenderOptions): string[] {
  const { service, offline, total, limit, minHealthy, problem } = view;
  const rows = offline.slice(0, SHOWN).map(({ node, why }) => ({
    ...{ cells: [node, 'offline', why], style: 'yellow' as const },
  }));
  const head = { cells: ['NODE', 'STATE', 'WHY'], style: 'dim' as const };
  const least = minHealthy === undefined ? '' : `, ${minHealthy} must stay healthy`;
  return [
    paint(`service ${visible(service)}`, 'bold', options.color),
    ...(rows.length > 0 ? renderTable([head, ...rows], options) : []),
    ...moreText(offline.length - rows.length),
    ...(problem === undefined ? [] : [paint(`  problem: ${visible(problem)}`, 'red', options.color)]),
    `  ${offline.length} of ${total} offline, ${limit} may be${least}`,
    `  gate: ${gateText(view)}`,
  ];
}

function gateText({ total, openFor, closedFor }: ServiceView): string {
  if (total === 0) return 'nobody offers it; is the name right?';
  if (closedFor.length === 0) return 'open for each of them';
  const open = openFor.length === 0 ? '' : `; open for ${names(openFor)}`;
  return `closed for ${names(closedFor)}${open}`;
}

function names(all: readonly string[]): string {
  const more = all.length - SHOWN;
  return visible(all.slice(0, SHOWN).join(', ')) + (more > 0 ? ` and ${more} more` : '');
}
