/** What somebody has to open who wants to know what `runlock exec -g GROUP -- true` does: measured, not guessed. */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { build } from 'esbuild';
import { startAgent } from '../../test/support/consul.ts';

/** As V8 writes it (NODE_V8_COVERAGE). */
interface Coverage {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly {
      readonly functionName: string;
      readonly ranges: readonly { readonly startOffset: number; readonly count: number }[];
    }[];
  }[];
}

/** The files of src, relative to it, in which a function is called on the way from argv to the run's end, on a real Consul. */
export async function filesOfARun(): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'runlock-structure-'));
  try {
    await bundle(folder);
    await using agent = await startAgent({ name: 'structure' });
    const { PATH = '', HOME = '' } = process.env;
    const env = {
      PATH,
      HOME,
      ...agent.env,
      RUNLOCK_CONFIG: '/dev/null',
      NODE_V8_COVERAGE: join(folder, 'coverage'),
    };
    await execa(process.execPath, [join(folder, 'main.mjs'), 'exec', '-g', 'structure', '--', 'true'], {
      env,
    });
    return called(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** In one file, and readable: each part of it is headed by a comment with the name of its source. */
const bundle = (outdir: string) =>
  build({
    ...{ entryPoints: { main: 'src/main.ts' }, bundle: true, platform: 'node', format: 'esm', outdir },
    ...{ outExtension: { '.js': '.mjs' }, target: 'node20.19', logLevel: 'warning', legalComments: 'none' },
    define: { RUNLOCK_VERSION: '"0"', RUNLOCK_BUILD: '""', RUNLOCK_LICENSES: '""' },
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });

function called(folder: string): string[] {
  const text = readFileSync(join(folder, 'main.mjs'), 'utf8');
  const parts = [...text.matchAll(/^ *\/\/ (\S+)$/gm)].map(({ index, 1: file = '' }) => ({ index, file }));
  const fileAt = (offset: number) => parts.findLast(({ index }) => index <= offset)?.file ?? '';
  const names = new Set<string>();
  const coverage = join(folder, 'coverage');
  for (const name of readdirSync(coverage)) {
    const { result } = JSON.parse(readFileSync(join(coverage, name), 'utf8')) as Coverage;
    for (const { url, functions } of result) {
      if (basename(url) !== 'main.mjs') continue;
      for (const { functionName, ranges } of functions) {
        const [whole] = ranges;
        // What esbuild wraps a module in, and what only stands at a module's top, says nothing of a reader.
        if (!whole || whole.count === 0 || whole.startOffset === 0) continue;
        if (functionName.startsWith('src/')) continue;
        names.add(fileAt(whole.startOffset));
      }
    }
  }
  return [...names]
    .filter((file) => file.startsWith('src/'))
    .map((file) => file.slice('src/'.length))
    .sort();
}
