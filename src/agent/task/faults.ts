/** Files of a node that are no tasks, though they should be: what others may know of them. Pure. */
import { basename } from 'node:path';
import type { AgentDocument, AgentFault } from '../../jobs/documents.ts';

/** Of a node that has mistaken a folder of anything for that of its tasks. */
const MOST = 20;
/** In characters. */
const LONGEST = 200;

/**
 * What an agent publishes. Without the advice, which may quote the file's own text.
 * @param faults a line each, as `readTasks` says them: `FILE:LINE: WHY; ADVICE`.
 */
export function publishedFaults(faults: readonly string[]): Pick<AgentDocument, 'faults' | 'moreFaults'> {
  if (faults.length === 0) return {};
  const more = faults.length - MOST;
  return { faults: faults.slice(0, MOST).map(toFault), ...(more > 0 && { moreFaults: more }) };
}

function toFault(text: string): AgentFault {
  const [, path = '', place = '', said = text] = /^(\/.*?)((?::\d+){0,2}): (.*)$/s.exec(text) ?? [];
  const [why = ''] = said.split('; ');
  const line = place === '' ? '' : `line ${place.split(':')[1] ?? ''}: `;
  const file = path.endsWith('.toml') ? basename(path) : path;
  return { file: file.slice(0, LONGEST), why: `${line}${why}`.slice(0, LONGEST) };
}
