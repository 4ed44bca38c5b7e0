/** The report of `runlock config`. */

/** What `config --json` prints. */
export interface ConfigReport {
  readonly v: 1;
  /** The command whose options these are. */
  readonly command: string;
  /** The groups whose sections apply; none: only the top of the file applies. */
  readonly groups: readonly string[];
  readonly file: { readonly path: string; readonly found: boolean };
  readonly options: readonly OptionReport[];
}

export interface OptionReport {
  /** The option's name in the file. */
  readonly option: string;
  /** The group that the value is for, if several groups can have different values. */
  readonly group?: string;
  /** As the text of a flag; null: not set. */
  readonly value: string | null;
  readonly from: 'flag' | 'environment' | 'file' | 'default';
  /** With `environment`. */
  readonly variable?: string;
  /** With `file`. */
  readonly line?: number;
  /** With `file`: the group whose section has the value. */
  readonly section?: string;
  /** What happens when the option is not set. */
  readonly means?: string;
}
