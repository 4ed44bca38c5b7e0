/** How long a node waits before it reads what all targets of a job have just been told: they must not all ask at once. Pure. */

/** Targets a second. */
const RATE = 200;

/** Milliseconds, the same for a node each time. */
export function spreadMs(node: string, targets: number): number {
  const seconds = Math.floor(targets / RATE);
  return seconds === 0 ? 0 : (hash(node) % (seconds * 1_000)) | 0;
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}
