// Where runs of a test take their nodes' turns (docs/adr/0041): tests run at the same time, and use the same names of nodes.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';

let root: string | undefined;

function folder(): string {
  if (root !== undefined) return root;
  const made = mkdtempSync(`${tmpdir()}/runlock-turns-`);
  // Each user makes folders of its own there.
  chmodSync(made, 0o1777);
  process.once('exit', () => rmSync(made, { recursive: true, force: true }));
  return (root = made);
}

/** Runs with the same words take turns, as far as they are runs of one node. */
export function turnsOf(...words: readonly string[]): { readonly RUNLOCK_TURN_DIR: string } {
  const name = words.join(' ').replaceAll(/[^A-Za-z0-9]+/g, '-');
  return { RUNLOCK_TURN_DIR: `${folder()}/turns-${name.slice(0, 100)}` };
}

/** As a test's runs do unless it says otherwise: those of the same groups, by what stands on their command lines. */
export function turnsOfGroups(args: readonly string[], ...words: readonly string[]) {
  const groups = args.filter((_, at) => ['-g', '--group'].includes(args[at - 1] ?? ''));
  return turnsOf(...groups, ...words);
}
