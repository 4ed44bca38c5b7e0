/** Where states are: `<prefix>/.state/<path>/.value` (docs/protocol.md, "Keys"). Pure. */
import { isName } from '../text/words.ts';

/** The folder of all states. */
const FOLDER = '.state';
/** The last segment, so that reading the tree of a state's key reads that one key. */
const VALUE = '.value';
/** As for groups. */
const LONGEST = 200;

/** What is wrong with `path` as a state's name, for a sentence; undefined: nothing. */
export function pathFault(path: string): string | undefined {
  if (!path.split('/').every(isName))
    return `'${path}' is not a valid state path; write one like db/schema whose parts are letters, digits, '.', '_' and '-', not starting with '.' or '-', and without '..'`;
  if (path.length > LONGEST) return `this path has ${path.length} characters; ${LONGEST} are allowed`;
  return undefined;
}

export const stateKey = (prefix: string, path: string) => `${prefix}/${FOLDER}/${path}/${VALUE}`;

/** An empty key next to a state's own, so that a watch on an unset state wakes only for that state. */
export const stateOpenKey = (key: string) => `${key.slice(0, -VALUE.length)}.open`;

/** Of every state below `path`, or of all; ends with a slash. */
export const statesBelow = (prefix: string, path = '') =>
  path === '' ? `${prefix}/${FOLDER}/` : `${prefix}/${FOLDER}/${path}/`;

/** The path of a state's key; undefined: the key is another's. */
export function pathOf(prefix: string, key: string): string | undefined {
  const [start, end] = [statesBelow(prefix), `/${VALUE}`];
  if (!key.startsWith(start) || !key.endsWith(end)) return undefined;
  const path = key.slice(start.length, -end.length);
  return pathFault(path) === undefined ? path : undefined;
}

/**
 * The rule that a token needs for `path`: for its folder, since who publishes one state there publishes its neighbours.
 */
export function stateRule(prefix: string, path: string, policy: 'read' | 'write'): string {
  const folder = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : path;
  return belowRule(statesBelow(prefix, folder), policy);
}

export const belowRule = (below: string, policy: 'read' | 'write') =>
  `key_prefix "${below}" { policy = "${policy}" }`;
