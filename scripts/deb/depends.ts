// The shared libraries that a program needs → Debian's packages that have them.
import type { Needs } from './elf.ts';

const HERE = 'scripts/deb/depends.ts';
const LIBC = ['libc.so.6', 'libm.so.6', 'libpthread.so.0', 'libdl.so.2', 'librt.so.1'];
const LOADER = /^ld-linux.*\.so\.\d+$/;

/** The first gcc with each version of libstdc++'s symbols: the package is numbered after gcc. */
const GCC: Readonly<Record<string, string>> = {
  'GLIBCXX_3.4.21': '5',
  'GLIBCXX_3.4.22': '6',
  'GLIBCXX_3.4.23': '7',
  'GLIBCXX_3.4.24': '7',
  'GLIBCXX_3.4.25': '8',
  'GLIBCXX_3.4.26': '9',
  'GLIBCXX_3.4.27': '9',
  'GLIBCXX_3.4.28': '9',
  'GLIBCXX_3.4.29': '11',
  'GLIBCXX_3.4.30': '12',
};

/** The value of `Depends`. @throws Error for a library that no package is known for. */
export function debianDepends({ libraries }: Needs): string {
  const packages = new Map<string, string>();
  for (const [name, versions] of libraries) {
    const found = packageOf(name, versions);
    const known = packages.get(found.name) ?? '0';
    packages.set(found.name, isNewer(found.least, known) ? found.least : known);
  }
  return [...packages]
    .map(([name, least]) => (least === '0' ? name : `${name} (>= ${least})`))
    .sort()
    .join(', ');
}

function packageOf(library: string, versions: readonly string[]): { name: string; least: string } {
  if (LIBC.includes(library) || LOADER.test(library)) return { name: 'libc6', least: newest(versions) };
  if (library === 'libgcc_s.so.1') return { name: 'libgcc-s1', least: '0' };
  if (library === 'libstdc++.so.6') {
    const symbols = `GLIBCXX_${newest(versions.filter((version) => /^GLIBCXX_[\d.]+$/.test(version)))}`;
    const least = GCC[symbols];
    if (least === undefined) throw new Error(`it needs ${symbols}; say in ${HERE} which gcc has it`);
    return { name: 'libstdc++6', least };
  }
  throw new Error(`it needs ${library}; say in ${HERE} which Debian package has it`);
}

/** Of `GLIBC_2.9` and `GLIBC_2.34`: 2.34. */
function newest(versions: readonly string[]): string {
  return versions
    .map((version) => version.replace(/^\w+_/, ''))
    .filter((version) => /^[\d.]+$/.test(version))
    .reduce((most, each) => (isNewer(each, most) ? each : most), '0');
}

function isNewer(one: string, other: string): boolean {
  return one.localeCompare(other, 'en', { numeric: true }) > 0;
}
