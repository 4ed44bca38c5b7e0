/** What `runlock config` finds out. */

/** What `config --json` prints. */
export interface ConfigReport {
  readonly v: 1;
  /** The command whose options these are. */
  readonly command: string;
  /** The groups whose sections count; none: only what stands at the top of the file. */
  readonly groups: readonly string[];
  readonly file: { readonly path: string; readonly found: boolean };
  readonly options: readonly OptionReport[];
}

export interface OptionReport {
  /** As in the file. */
  readonly option: string;
  /** Of several groups, where each can have its own value: whose this is. */
  readonly group?: string;
  /** As a flag would give it; null: not set. */
  readonly value: string | null;
  readonly from: 'flag' | 'environment' | 'file' | 'default';
  /** With `environment`. */
  readonly variable?: string;
  /** With `file`. */
  readonly line?: number;
  /** With `file`: the group whose section it stands in. */
  readonly section?: string;
  /** What happens when the option is not set. */
  readonly means?: string;
}
