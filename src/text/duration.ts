/** Durations as people write them. */

const UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/** Go's syntax, which Consul uses, with days and weeks added: `90s`, `1h30m`, `2d`, `0`. Milliseconds; undefined: it is none. */
export function durationMs(text: string): number | undefined {
  const part = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|[smhdw])/gy;
  let ms = 0;
  let end = 0;
  for (let match = part.exec(text); match; match = part.exec(text)) {
    ms += Number(match[1]) * (UNITS_MS[match[2] ?? ''] ?? 0);
    end = part.lastIndex;
  }
  if (text === '0') return 0;
  return text === '' || end !== text.length ? undefined : ms;
}

/** A year: longer than anything waits. */
export const LONGEST_MS = 366 * 24 * 3_600_000;

/** What a duration looks like, for messages. */
export const DURATIONS = 'write it like 90s, 10m, 1h30m or 2d';
