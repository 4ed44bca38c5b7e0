// What a build says of itself.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export const { version } = JSON.parse(readFileSync('package.json', 'utf8'));

/** npm's packages of what runs the single file, by its architecture. */
export const runtimes = { x64: '@oven/bun-linux-x64', arm64: '@oven/bun-linux-aarch64' };

/** What package-lock.json says of them: `{ version, integrity }`. */
export function lockedRuntime(target) {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  return packages[`node_modules/${runtimes[target]}`];
}

/** SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) comes before the clock. */
function builtAt() {
  const { SOURCE_DATE_EPOCH: epoch } = process.env;
  if (epoch === undefined || epoch === '') return new Date();
  if (!/^\d{1,11}$/.test(epoch)) throw new Error(`SOURCE_DATE_EPOCH=${epoch}: it must be seconds since 1970`);
  return new Date(Number(epoch) * 1000);
}

/** Where the source is no checkout, RUNLOCK_COMMIT says which one it is. */
function commit() {
  const { RUNLOCK_COMMIT: named } = process.env;
  if (named !== undefined && named !== '') return named;
  const git = (...args) =>
    execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no').trim() !== '';
    return `${git('rev-parse', '--short=12', 'HEAD').trim()}${changed ? ' with changes' : ''}`;
  } catch {
    return 'unknown';
  }
}

/** `commit 0123456789ab, built 2026-01-31T12:00:00Z` */
export const build = () =>
  `commit ${commit()}, built ${builtAt()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')}`;
