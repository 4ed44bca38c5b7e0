// What runs write down of themselves, kept in memory.
import type { RunFile, RunFiles } from '../../src/process/run-file.ts';

/** `written`: each file as it was written, in order; `kept`: those that are there. */
export function runFilesInMemory(): RunFiles & {
  readonly written: readonly RunFile[];
  readonly kept: ReadonlyMap<string, RunFile>;
} {
  const written: RunFile[] = [];
  const kept = new Map<string, RunFile>();
  return {
    written,
    kept,
    where: () => ({ folder: 'memory' }),
    write: (file) => {
      written.push(file);
      kept.set(file.run, file);
    },
    read: (run) => kept.get(run),
    list: () => [...kept.values()],
    remove: (run) => void kept.delete(run),
    settle: (run) => void kept.delete(run),
    sweep: () => undefined,
  };
}
