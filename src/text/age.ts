/** Durations and times for people. */

/** `4s`, `3m12s`, `2h05m`, `3d4h`; the smaller unit is left out when it is zero. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes === 0) return `${seconds}s`;
  if (hours === 0) return `${minutes}m${rest(seconds % 60, 's')}`;
  if (hours < 24) return `${hours}h${rest(minutes % 60, 'm')}`;
  return `${Math.floor(hours / 24)}d${hours % 24 === 0 ? '' : `${hours % 24}h`}`;
}

function rest(count: number, unit: string): string {
  return count === 0 ? '' : `${String(count).padStart(2, '0')}${unit}`;
}

/** A time for people, without milliseconds. @param moment ISO 8601 */
export const clockTime = (moment: string): string => moment.replace(/\.\d+Z$/, 'Z');

/** An end time: `until 2026-03-01T12:00:00Z (in 2h)`. @param moment ISO 8601. @param nowMs wall-clock milliseconds */
export function momentText(moment: string, nowMs: number): string {
  return `until ${clockTime(moment)} (in ${formatAge(Date.parse(moment) - nowMs)})`;
}
