// What a program asks of the machine's libraries, as the machine's own loader tells it.

/** Every library that has a version belongs to Debian's libc6; a program that needs another one must say so here. */
const LIBC6 = /^(?:lib(?:c|m)\.so\.6|lib(?:pthread|rt)\.so\.[01]|libdl\.so\.2|ld-linux.*\.so\.\d)$/;

/** @param told What `ldd -v` prints. @returns the field Depends of a Debian package. */
export function dependsByLoader(told: string): string {
  const [libraries = '', versions = ''] = told.split(/^\s+Version information:\n/m);
  const names = [...libraries.matchAll(/^\t(?!linux-vdso)(\S+)/gm)].map(([, name = '']) =>
    name.replace(/^.*\//, ''),
  );
  const others = names.filter((name) => !LIBC6.test(name));
  // The first paragraph is the program's own; those of its libraries follow.
  const [own = ''] = versions.split(/^\t(?=\S)/m).slice(1);
  const numbers = [...own.matchAll(/\(GLIBC_([\d.]+)\)/g)].map(([, number = '']) => number);
  const newest = numbers.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? 'unknown';
  return [`libc6 (>= ${newest})`, ...others].join(', ');
}
