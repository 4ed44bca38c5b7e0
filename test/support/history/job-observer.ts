// Reads a job's keys from Consul after every change, for as long as a test goes on.
import type { Agent } from '../consul.ts';
import type { JobLook, Stamped } from './jobs.ts';
import { read, watchTree } from './observer.ts';
import type { StoredPair } from './observer.ts';

export interface JobObserver {
  /** All looks up to now, one of this moment included, each of which shows a change. */
  seen(): Promise<readonly JobLook[]>;
  stop(): Promise<void>;
}

/** `prefix`: the job's own, with its slash at the end. */
export function observeJob(agent: Pick<Agent, 'http'>, prefix: string): JobObserver {
  const looks: JobLook[] = [];
  // A watch may answer after a later look: what is older than what was seen is no news.
  let newest = 0;
  const watch = watchTree(agent, prefix, (pairs, index) => {
    const look = toLook(prefix, pairs);
    if (!look || index <= newest) return;
    newest = index;
    looks.push(look);
  });
  return {
    seen: async () => {
      await watch.look();
      return looks;
    },
    stop: watch.stop,
  };
}

/** Undefined: the job is not there. */
function toLook(prefix: string, pairs: readonly StoredPair[]): JobLook | undefined {
  const at = new Map(pairs.map((pair) => [pair.Key.slice(prefix.length), pair]));
  const stage = at.get('stage');
  if (!stage) return undefined;
  const targets = [...at].flatMap(([name, pair]) =>
    name.startsWith('nodes/')
      ? [[name.slice('nodes/'.length), stamped<{ state: string }>(pair)] as const]
      : [],
  );
  const { states } = read(at.get('tally')) as { states?: Record<string, number> };
  return { stage: stamped<{ kind: string }>(stage), tally: states ?? {}, targets: new Map(targets) };
}

const stamped = <T>(pair: StoredPair): Stamped<T> => ({ index: pair.ModifyIndex, value: read(pair) as T });
