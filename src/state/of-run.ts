/** The documents that a run writes: with its end (`--publish`), or while its claim stands (`--during`). Pure. */
import type { Causes } from '../lock/causes.ts';
import type { Setting } from './setting.ts';
import type { StateDocument, While } from './document.ts';

/** Who writes, and what each change is called. */
export interface Writer {
  readonly node: string;
  readonly run: string;
  /** The time now, as records have it. */
  readonly at: string;
  /** A change's random id. */
  readonly newId: () => string;
  /** Of the run. */
  readonly causes?: Causes | undefined;
}

const documentOf = ({ value }: Setting, { node, run, at, newId, causes }: Writer): StateDocument => ({
  value,
  change: newId(),
  by: node,
  at,
  run,
  ...causes,
});

export const duringDocument = (setting: Setting, claim: While, writer: Writer): StateDocument => ({
  ...documentOf(setting, writer),
  while: claim,
});

export const publishedDocument = (setting: Setting, writer: Writer): StateDocument => ({
  ...documentOf(setting, writer),
  published: true,
});
