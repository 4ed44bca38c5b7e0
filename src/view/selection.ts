/** What found the targets of a job, in words. Pure. */
import { visible } from '../text/visible.ts';
import type { Selection } from '../jobs/documents.ts';

/** `service web, tag blue, of 3 named nodes`; for people. */
export function selectionText({
  named,
  service,
  tags = [],
  meta = {},
  filter,
  group,
  job,
  states = [],
}: Selection): string {
  const parts = [
    ...(service === undefined ? [] : [`service ${service}`]),
    ...tags.map((tag) => `tag ${tag}`),
    ...Object.entries(meta).map(([key, value]) => `meta ${key}=${value}`),
    ...(filter === undefined ? [] : [`filter ${filter}`]),
    ...(group === undefined ? [] : [`group ${group}`]),
    ...(job === undefined ? [] : [`${states.length === 0 ? 'targets' : states.join(' or ')} of job ${job}`]),
    ...(named ? [`${named.count} named ${named.count === 1 ? 'node' : 'nodes'}`] : []),
  ];
  return visible(parts.join(', '));
}
