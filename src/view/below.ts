/** Groups below others: `prod/web` is below `prod`. Pure. */

import type { StatusReport } from './report.ts';

/** Whether `group` is one of `groups`, or below one of them. */
export function isWithin(group: string, groups: readonly string[]): boolean {
  return groups.includes(group) || isBelow(group, groups);
}

/** Whether `group` is below one of `groups`. */
export function isBelow(group: string, groups: readonly string[]): boolean {
  return groups.some((each) => group.startsWith(`${each}/`));
}

/** Leaves out groups that have no keys of their own and were named only for the groups below them. */
export function usedGroups<T extends { readonly group: string; readonly known: boolean }>(
  groups: readonly T[],
): T[] {
  const used = groups.filter(({ known }) => known);
  return groups.filter(({ known, group }) => known || !used.some((each) => isBelow(each.group, [group])));
}

/**
 * The same report with only the blocked groups, and with named groups that have no keys, so that a misspelled name does
 * not look like good news. The counts stay those of all groups.
 */
export function onlyBlocked(report: StatusReport): StatusReport {
  const groups = usedGroups(report.groups).filter(({ state, known }) => state === 'blocked' || !known);
  return { ...report, groups };
}
