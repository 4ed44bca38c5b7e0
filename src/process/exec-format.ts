/**
 * What a file is to who would run it. What the kernel refuses with ENOEXEC, execvp(3) gives to a shell, and with it Node
 * and env(1): a program for another machine would be read as a script, and end with 0 as like as not.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, readdirSync } from 'node:fs';
import { arch, endianness } from 'node:os';
import { extname } from 'node:path';

interface Head {
  /** At most HEAD_BYTES of it. */
  readonly bytes: Buffer;
  /** Of the whole file. */
  readonly size: number;
}

const HEAD_BYTES = 256;

/** Whether the kernel or a shell takes it for a program; true, too, where only the kernel can tell. */
export function isRunnable(file: string): boolean {
  const head = readHead(file);
  return head === undefined || isTextIn(head) || isForThisMachine(head) || hasInterpreter(file, head.bytes);
}

/** Whether a shell may take it for a script: no zero byte in its first line. */
export function isText(file: string): boolean {
  const head = readHead(file);
  // Whoever may not read it could not run it as a script.
  return head !== undefined && isTextIn(head);
}

function isTextIn({ bytes }: Head): boolean {
  const end = bytes.indexOf('\n');
  return !bytes.subarray(0, end === -1 ? bytes.length : end).includes(0);
}

/** Undefined: it is no regular file, or this user may not read it. */
function readHead(file: string): Head | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    const stats = fstatSync(fd);
    if (!stats.isFile()) return undefined;
    const bytes = Buffer.alloc(HEAD_BYTES);
    return { bytes: bytes.subarray(0, readSync(fd, bytes)), size: stats.size };
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** elf(5), e_machine, of what a kernel for Node's name of an architecture runs. */
const MACHINES: Readonly<Record<string, readonly number[]>> = {
  // 32 bits too, where the kernel has them: only it can tell.
  x64: [62, 3],
  arm64: [183, 40],
};

const SHELL = '/bin/sh';

/** What runs the host's own shell is for this machine, whatever an emulator tells runlock itself that it is. */
function isForThisMachine(head: Head): boolean {
  const machine = machineIn(head);
  if (machine === undefined) return false;
  const machines = MACHINES[arch()];
  if (machines === undefined || machines.includes(machine)) return true;
  const shell = readHead(SHELL);
  return shell !== undefined && machineIn(shell) === machine;
}

/** Of an ELF program or library that the kernel does not refuse at its first look. */
function machineIn({ bytes, size }: Head): number | undefined {
  if (bytes.length < 64 || bytes.toString('latin1', 0, 4) !== '\x7fELF') return undefined;
  const isLittle = endianness() === 'LE';
  if (bytes[5] !== (isLittle ? 1 : 2)) return undefined;
  const half = (at: number) => (isLittle ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const word = (at: number) => (isLittle ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const isWide = bytes[4] === 2;
  const [entrySize, entries] = isWide ? [half(54), half(56)] : [half(42), half(44)];
  // The upper half is zero in any file that fits on a disk.
  const table = isWide ? word(isLittle ? 32 : 36) : word(28);
  const isWhole =
    [2, 3].includes(half(16)) &&
    entrySize === (isWide ? 56 : 32) &&
    entries > 0 &&
    table + entries * entrySize <= size;
  return isWhole ? half(18) : undefined;
}

const REGISTERED = '/proc/sys/fs/binfmt_misc';

/** Whether somebody has told the kernel what runs it (binfmt_misc: QEMU, Java, Wine). */
function hasInterpreter(file: string, head: Buffer): boolean {
  try {
    return readdirSync(REGISTERED)
      .filter((name) => name !== 'register' && name !== 'status')
      .some((name) => isMeant(readFileSync(`${REGISTERED}/${name}`, 'utf8'), { file, head }));
  } catch {
    // None is mounted, or this user may not read it.
    return false;
  }
}

/** `entry`: as the kernel shows one (admin-guide/binfmt-misc). Pure. */
export function isMeant(entry: string, { file, head }: { file: string; head: Buffer }): boolean {
  const lines = entry.split('\n');
  if (lines[0] !== 'enabled') return false;
  const valueOf = (name: string) => lines.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1);
  const extension = valueOf('extension');
  if (extension !== undefined) return extname(file) === extension;
  const magic = Buffer.from(valueOf('magic') ?? '', 'hex');
  const mask = Buffer.from(valueOf('mask') ?? '', 'hex');
  const offset = Number(valueOf('offset'));
  return (
    magic.length > 0 &&
    magic.every((byte, i) => ((head[offset + i] ?? -1) & (mask[i] ?? 0xff)) === (byte & (mask[i] ?? 0xff)))
  );
}
