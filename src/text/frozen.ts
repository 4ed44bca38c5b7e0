/** What a freeze at `at` stops, for a reader who asks about `group`; '' is the freeze of every group. */
export function frozenName(at: string, group: string): string {
  if (at === '') return 'every group';
  return at === group ? group : `${at} (which includes ${group})`;
}
