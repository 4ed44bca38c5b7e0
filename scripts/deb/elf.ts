// What a program needs of the system, out of its own file: the kind of machine, its shared libraries, and the newest
// version of each library's symbols. Sizes and offsets are ELF-64's, little-endian.

export interface Needs {
  /** Debian's name for the machine. */
  readonly architecture: string;
  /** Shared libraries by soname, each with the symbol versions asked of it: `GLIBC_2.34`. */
  readonly libraries: ReadonlyMap<string, readonly string[]>;
}

const MACHINES: Readonly<Record<number, string>> = { 0x3e: 'amd64', 0xb7: 'arm64' };
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT = { needed: 1, strtab: 5, verneed: 0x6ffffffe, verneedCount: 0x6fffffff } as const;

/** @throws Error: what it is instead. */
export function readNeeds(file: Buffer): Needs {
  if (file.length < 64 || file.readUInt32BE(0) !== 0x7f454c46) throw new Error('it is no ELF program');
  if (file[4] !== 2 || file[5] !== 1) throw new Error('it is no program for a 64-bit little-endian machine');
  const machine = file.readUInt16LE(18);
  const architecture = MACHINES[machine];
  if (architecture === undefined) throw new Error(`it is for machine ${machine}, not amd64 or arm64`);
  const segments = readSegments(file);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  const libraries = new Map<string, string[]>();
  if (!dynamic) return { architecture, libraries };
  const entries = readDynamic(file, dynamic);
  const first = (tag: number) => entries.find((entry) => entry.tag === tag)?.value;
  const strings = toOffset(segments, first(DT.strtab) ?? 0);
  const text = (at: number) => file.toString('latin1', strings + at, file.indexOf(0, strings + at));
  for (const { tag, value } of entries) if (tag === DT.needed) libraries.set(text(value), []);
  const verneed = first(DT.verneed);
  if (verneed === undefined) return { architecture, libraries };
  for (const { library, version } of readVersions(file, toOffset(segments, verneed), first(DT.verneedCount)))
    libraries.get(text(library))?.push(text(version));
  return { architecture, libraries };
}

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly size: number;
}

function readSegments(file: Buffer): Segment[] {
  const start = Number(file.readBigUInt64LE(32));
  const size = file.readUInt16LE(54);
  return Array.from({ length: file.readUInt16LE(56) }, (_, i) => {
    const at = start + i * size;
    const word = (offset: number) => Number(file.readBigUInt64LE(at + offset));
    return { type: file.readUInt32LE(at), offset: word(8), address: word(16), size: word(32) };
  });
}

function readDynamic(file: Buffer, { offset, size }: Segment): { tag: number; value: number }[] {
  return Array.from({ length: size / 16 }, (_, i) => ({
    tag: Number(file.readBigInt64LE(offset + i * 16)),
    value: Number(file.readBigUInt64LE(offset + i * 16 + 8)),
  }));
}

/** Where in the file an address is. */
function toOffset(segments: readonly Segment[], address: number): number {
  const holds = ({ type, address: start, size }: Segment) =>
    type === PT_LOAD && address >= start && address < start + size;
  const segment = segments.find(holds);
  if (!segment) throw new Error(`no segment of it has the address ${address}`);
  return segment.offset + address - segment.address;
}

/** Offsets of names: a list of libraries, each with a list of versions. */
function* readVersions(
  file: Buffer,
  start: number,
  count = 0,
): Generator<{ library: number; version: number }> {
  for (let at = start, i = 0; i < count; i += 1) {
    const library = file.readUInt32LE(at + 4);
    let entry = at + file.readUInt32LE(at + 8);
    for (let left = file.readUInt16LE(at + 2); left > 0; left -= 1) {
      yield { library, version: file.readUInt32LE(entry + 8) };
      entry += file.readUInt32LE(entry + 12);
    }
    at += file.readUInt32LE(at + 12);
  }
}
