// Scripts that run a program out of a folder of unpacked Debian packages as if these were installed. A package that
// the machine has already is not in the folder, so each part of the program may be here or there.
// They end in `exec`, so that process id and signals are the program's own, and they find their folder themselves.
import { existsSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Shell text that runs ansible-playbook out of `root`. */
export function ansibleScript(root: string): string {
  const python = existsSync(join(root, 'usr/bin/python3')) ? '$root/usr/bin/python3' : '/usr/bin/python3';
  return script(root, [
    `export PYTHONPATH="$root/usr/lib/python3/dist-packages"`,
    // The module side of a local job runs on the same Python, not on whatever the PATH has first.
    `export ANSIBLE_PYTHON_INTERPRETER="${python}"`,
    'export LC_ALL=C.UTF-8',
    `exec "${python}" "$root/usr/bin/ansible-playbook" "$@"`,
  ]);
}

/** Shell text that runs puppet out of `root`, and a configuration in there that keeps it off the system's folders. */
export function puppetScript(root: string): string {
  const ruby = entries(root, 'usr/bin').find((name) => /^ruby[\d.]+$/.test(name));
  const program = ruby === undefined ? '/usr/bin/ruby' : `$root/usr/bin/${ruby}`;
  const inRoot = (path: string) => `$root/${path}`;
  const gems = ['usr/share/rubygems-integration/all', ...below(root, 'usr/lib/ruby/gems')];
  mkdirSync(join(root, 'conf'), { recursive: true });
  writeFileSync(join(root, 'conf/puppet.conf'), puppetConfiguration);
  return script(root, [
    `export RUBYLIB="${rubyFolders(root).map(inRoot).join(':')}"`,
    // A path that ends in a colon keeps Ruby's own folders.
    `export GEM_PATH="${gems.map(inRoot).join(':')}:"`,
    'export LC_ALL=C.UTF-8',
    'unset RUBYOPT',
    // Only these two read settings, and a later option of the caller's wins.
    'case "${1-}" in apply | agent) app=$1; shift; set -- "$app" --confdir "$root/conf" --vardir "$root/var" "$@" ;; esac',
    `exec "${program}" "$root/usr/bin/puppet" "$@"`,
  ]);
}

/** Debian's own defaults lie outside vardir, and only root may write there. Unknown settings are passed over. */
const puppetConfiguration = `[main]
codedir = $confdir/code
ssldir = $vardir/ssl
publicdir = $vardir/public
rundir = $vardir/run
logdir = $vardir/log
`;

/** Shell text that runs zsh out of `root`. It takes no path of modules from its environment, so a file of ours says it. */
export function zshScript(root: string): string {
  const modules = libraryFolders(root).flatMap((path) => below(root, `${path}/zsh`));
  const settings = [
    'root=${ZDOTDIR%/conf}',
    `module_path=(${modules.map((path) => `"$root/${path}"`).join(' ')})`,
    'fpath=("$root"/usr/share/zsh/functions/**/*(N/))',
    '',
  ];
  mkdirSync(join(root, 'conf'), { recursive: true });
  writeFileSync(join(root, 'conf/.zshenv'), settings.join('\n'));
  // Its own place is where the script goes.
  const program = ['bin/zsh', 'usr/bin/zsh'].map((path) => join(root, path)).find(existsSync) ?? '';
  renameSync(program, join(root, 'zsh'));
  return script(root, ['export ZDOTDIR="$root/conf"', 'exec "$root/zsh" "$@"']);
}

/** Shell text that runs fish out of `root`: it looks for its own files beside its program if all of them are there. */
export function fishScript(root: string): string {
  symlinkSync('../etc', join(root, 'usr/etc'));
  return script(root, ['exec "$root/usr/bin/fish" "$@"']);
}

/** Shell text that runs mandoc out of `root`. */
export function mandocScript(root: string): string {
  return script(root, ['exec "$root/usr/bin/mandoc" "$@"']);
}

/** Shell text that runs lintian out of `root`, and what it asks of file, groff and its other helpers. */
export function lintianScript(root: string): string {
  const libraries = libraryFolders(root).flatMap((path) => [`${path}/perl5`, `${path}/perl`]);
  const versioned = [...libraries, 'usr/share/perl'].flatMap((path) => below(root, path));
  const modules = ['usr/share/lintian/lib', 'usr/share/perl5', ...versioned];
  const magic = existsSync(join(root, 'usr/lib/file/magic.mgc'))
    ? ['export MAGIC="$root/usr/lib/file/magic.mgc"']
    : [];
  const groff = below(root, 'usr/share/groff').filter((path) => /\d$/.test(path));
  return script(root, [
    `export PERL5LIB="${modules.map((path) => `$root/${path}`).join(':')}"`,
    'export PATH="$root/usr/bin:$PATH"',
    ...magic,
    ...groff.flatMap((path) => [
      `export GROFF_TMAC_PATH="$root/${path}/tmac"`,
      `export GROFF_FONT_PATH="$root/${path}/font"`,
    ]),
    'export LC_ALL=C.UTF-8',
    'exec perl "$root/usr/bin/lintian" "$@"',
  ]);
}

/** Shell text that runs systemd-analyze out of `root`: it has a library in a folder of its own. */
export function systemdAnalyzeScript(root: string): string {
  const own = libraryFolders(root).map((path) => `$root/${path}/systemd`);
  return script(root, [
    `export LD_LIBRARY_PATH="${own.join(':')}:\${LD_LIBRARY_PATH-}"`,
    'exec "$root/usr/bin/systemd-analyze" "$@"',
  ]);
}

/** Shell text that runs an arm64 program, with the C library in `root`. What that program starts is this machine's own. */
export function qemuScript(root: string): string {
  const program = ['usr/bin/qemu-aarch64-static', 'usr/bin/qemu-aarch64'].find((path) =>
    existsSync(join(root, path)),
  );
  return ['#!/bin/sh', 'root=${0%/bin/*}', `exec "$root/${program}" -L "$root" "$@"`, ''].join('\n');
}

function rubyFolders(root: string): string[] {
  const libraries = ['usr/lib', ...libraryFolders(root)].map((path) => `${path}/ruby`);
  const versioned = libraries.flatMap((path) => below(root, path)).filter((path) => /\/\d[\d.]*$/.test(path));
  const vendored = libraries.flatMap((path) => below(root, `${path}/vendor_ruby`));
  return ['usr/lib/ruby/vendor_ruby', ...vendored.filter((path) => /\/\d[\d.]*$/.test(path)), ...versioned];
}

function script(root: string, lines: readonly string[]): string {
  const libraries = libraryFolders(root).map((path) => `$root/${path}`);
  const path = libraries.length === 0 ? [] : [`export LD_LIBRARY_PATH="${libraries.join(':')}"`];
  return ['#!/bin/sh', 'root=${0%/bin/*}', ...path, ...lines, ''].join('\n');
}

/** Where Debian puts shared libraries: /usr/lib/<architecture>-linux-gnu. */
function libraryFolders(root: string): string[] {
  return ['lib', 'usr/lib']
    .flatMap((path) => below(root, path))
    .filter((path) => /-linux-gnu\w*$/.test(path));
}

function below(root: string, path: string): string[] {
  return entries(root, path).map((name) => `${path}/${name}`);
}

function entries(root: string, path: string): string[] {
  return existsSync(join(root, path)) ? readdirSync(join(root, path)) : [];
}
