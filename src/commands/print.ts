/** Prints the results of commands on stdout. */
import { createOutput, sentenceColumns } from '../platform/terminal.ts';
import type { Output } from '../platform/terminal.ts';
import { renderJson } from '../text/visible.ts';
import { wrapSentence } from '../text/wrap.ts';
import type { Platform } from './platform.ts';

type Printer = Pick<Platform, 'env' | 'stdout' | 'write'>;

/** What stdout can show. */
interface PrintOutput extends Output {
  /** Width at which to break sentences; undefined in a pipe, where a line stays one fact, whatever COLUMNS says. */
  readonly sentenceColumns: number | undefined;
}

/** One result, for programs and for people. */
interface Printed {
  /** Whether `--json` was given. */
  readonly json: boolean;
  readonly data: object;
  /** Whole lines, made for what stdout can show. */
  readonly text: (output: PrintOutput) => string;
  /** Whether every line is a sentence that `print` may break at words. */
  readonly isProse?: true;
}

export async function print(platform: Printer, { json, data, text, isProse }: Printed): Promise<void> {
  if (json) return printJson(platform, data);
  const { isTTY, columns } = platform.stdout;
  const { env } = platform;
  const output = createOutput({ env, isTTY, columns });
  const width = sentenceColumns({ env, columns: output.columns });
  const proseWidth = isTTY ? width : undefined;
  const shown = text({ ...output, columns: width, sentenceColumns: proseWidth });
  await platform.write(isProse ? wrapEach(shown, proseWidth) : shown);
}

/** Breaks each line at words; `columns` undefined: not at all. */
const wrapEach = (text: string, columns = Infinity): string =>
  text
    .split('\n')
    .map((line) => wrapSentence(line, columns))
    .join('\n');

/** Prints sentences that are no result of their own, such as those of `state watch`. */
export async function printProse(platform: Printer, text: string): Promise<void> {
  await print(platform, { json: false, data: {}, text: () => text, isProse: true });
}

/** Prints `--json` output, which starts with the version of its shape. */
export async function printJson({ write }: Pick<Platform, 'write'>, data: object): Promise<void> {
  await write(`${renderJson({ v: 1, ...data }, 2)}\n`);
}

/** Prints one of many JSON objects, each on its own line. */
export async function printJsonLine({ write }: Pick<Platform, 'write'>, data: object): Promise<void> {
  await write(`${renderJson({ v: 1, ...data })}\n`);
}
