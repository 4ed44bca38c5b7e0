/** Five words that all texts use in the same sense. Pure. */

/** Shown in help, on the man page and in the README. */
export const glossary: readonly (readonly [word: string, meaning: string])[] = [
  ['group', 'nodes that must not all change at once, named by a path such as prod/web'],
  ['slot', 'one of the runs that a group allows at a time'],
  ['queue', 'runs waiting for a slot, first come, first served'],
  ['claim', 'the record that a node owns a slot; it outlives a crash, a failure, a reboot'],
  ['blocked', 'a group whose slots are all kept by claims that nothing will end by itself'],
];
