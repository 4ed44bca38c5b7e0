/** Names what a freeze at `at` stops, for a reader who asked about `group`; '' is the root, with all groups. */
export function frozenName(at: string, group: string): string {
  if (at === '') return 'every group';
  return at === group ? group : `${at} (which includes ${group})`;
}
