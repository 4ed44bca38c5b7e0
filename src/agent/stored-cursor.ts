/** The cursors of a node's triggers and hooks, as they stand in Consul. */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { encodeCursor, readCursor } from '../jobs/cursor.ts';
import type { Cursor, ReadCursor } from '../jobs/cursor.ts';
import { triggerRule, triggersPrefix } from '../jobs/keys.ts';

export interface StoredCursor {
  readonly key: string;
  readonly read: ReadCursor;
  /** 0: it is not there. */
  readonly index: number;
}

export interface Cursors {
  all(options: RetryOptions): Promise<ReadonlyMap<string, StoredCursor>>;
  read(key: string, options: RetryOptions): Promise<StoredCursor>;
  /** Undefined: somebody else has written meanwhile. */
  write(seen: StoredCursor, cursor: Cursor, options: RetryOptions): Promise<StoredCursor | undefined>;
}

export function openCursors(consul: Consul, prefix: string, node: string): Cursors {
  const rule = triggerRule(prefix, node);
  return {
    all: async (options) => {
      const { entries } = await consul.list(triggersPrefix(prefix, node), { ...options, rule });
      return new Map(
        entries.map((entry) => [
          entry.key,
          { key: entry.key, read: readCursor(entry), index: entry.modifyIndex },
        ]),
      );
    },
    read: async (key, options) => {
      const { entry } = await consul.get(key, { ...options, rule });
      return { key, read: readCursor(entry), index: entry?.modifyIndex ?? 0 };
    },
    write: async ({ key, index }, cursor, options) => {
      const value = encodeCursor(cursor);
      const answer = await consul.transact([{ verb: 'cas', key, value, index }], { ...options, rule });
      if (answer.kind === 'refused') return undefined;
      const written = answer.entries.findLast((entry) => entry.key === key);
      return { key, read: { kind: 'cursor', cursor }, index: written?.modifyIndex ?? 0 };
    },
  };
}
