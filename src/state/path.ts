/** Keys of states: `<prefix>/.state/<path>/.value` (docs/protocol.md, "Keys"). Pure. */
import { hint } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import { isName } from '../text/words.ts';

/** The folder of all states. */
const FOLDER = '.state';
/** The last segment, so that reading the tree of a state's key reads that one key. */
const VALUE = '.value';
const OPEN = '.open';
/** In characters, as for groups. */
const LONGEST = 200;
const MOST_LEVELS = 50;

/**
 * What is wrong with `path` as a state's name, for a sentence; undefined: nothing. `typed`: what the user wrote, if
 * that is not quite the path.
 */
export function pathFault(path: string, typed = path): string | undefined {
  if (typed.length > LONGEST) return `this state path has ${typed.length} characters; ${LONGEST} are allowed`;
  const parts = path.split('/');
  if (!parts.every(isName))
    return `'${visible(typed)}' is not a valid state path; write one like db/schema whose parts are letters, digits, '.', '_' and '-', not starting with '.' or '-', and without '..'`;
  if (parts.length > MOST_LEVELS)
    return `this state path is ${parts.length} levels deep; ${MOST_LEVELS} are allowed`;
  return undefined;
}

export const stateKey = (prefix: string, path: string) => `${prefix}/${FOLDER}/${path}/${VALUE}`;

/** The prefix of a state's key. */
export const prefixOf = (key: string) => key.slice(0, key.indexOf(`/${FOLDER}/`));

/** An empty key next to a state's own, so that a watch on an unset state wakes only for that state. */
export const stateOpenKey = (key: string) => `${key.slice(0, -VALUE.length)}${OPEN}`;

/** Key prefix of all states below `path`, or of all states; ends with a slash. */
export const statesBelow = (prefix: string, path = '') =>
  path === '' ? `${prefix}/${FOLDER}/` : `${prefix}/${FOLDER}/${path}/`;

/** The path of a state's key; undefined: not a state's key. */
export const pathOf = (prefix: string, key: string) => pathBefore(VALUE, prefix, key);

/** The path of the state beside which an `.open` stands; undefined: the key is another's. */
export const openPathOf = (prefix: string, key: string) => pathBefore(OPEN, prefix, key);

function pathBefore(last: string, prefix: string, key: string): string | undefined {
  const [start, end] = [statesBelow(prefix), `/${last}`];
  if (!key.startsWith(start) || !key.endsWith(end)) return undefined;
  const path = key.slice(start.length, -end.length);
  return pathFault(path) === undefined ? path : undefined;
}

/** The command that deletes the state of this key, which is one of `pathOf`. */
export function deleteHint(key: string): string {
  const [prefix = '', rest = ''] = key.split(`/${FOLDER}/`);
  return hint(prefix, 'state', 'delete', rest.slice(0, -`/${VALUE}`.length));
}

/**
 * The rule that a token needs for `path`. It covers the path's folder, because whoever may publish one state there may
 * publish its neighbours.
 */
export function stateRule(prefix: string, path: string, policy: 'read' | 'write'): string {
  const folder = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : path;
  return belowRule(statesBelow(prefix, folder), policy);
}

export const belowRule = (below: string, policy: 'read' | 'write') =>
  `key_prefix "${below}" { policy = "${policy}" }`;
