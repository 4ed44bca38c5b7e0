/** What a command found out or did → stdout. */
import { createOutput, sentenceColumns } from '../platform/terminal.ts';
import type { Output } from '../platform/terminal.ts';
import { renderJson } from '../text/visible.ts';
import { wrapSentence } from '../text/wrap.ts';
import type { Platform } from './platform.ts';

type Printer = Pick<Platform, 'env' | 'stdout' | 'write'>;

/** One way to say it for programs, one for people. */
interface Printed {
  /** Whether `--json` was given. */
  readonly json: boolean;
  readonly data: object;
  /** Whole lines, made for what stdout can show. */
  readonly text: (output: Output) => string;
  /** Whether these lines are sentences: then a terminal has them broken at words. */
  readonly isProse?: true;
}

export async function print(platform: Printer, { json, data, text, isProse }: Printed): Promise<void> {
  if (json) return printJson(platform, data);
  const { isTTY, columns } = platform.stdout;
  const { env } = platform;
  const output = createOutput({ env, isTTY, columns });
  const width = sentenceColumns({ env, columns: output.columns });
  const shown = text({ ...output, columns: width });
  const wraps = isProse && isTTY && width !== undefined;
  await platform.write(
    wraps
      ? shown
          .split('\n')
          .map((line) => wrapSentence(line, width))
          .join('\n')
      : shown,
  );
}

/** As every `--json` is: with the version of its shape first. */
export async function printJson({ write }: Pick<Platform, 'write'>, data: object): Promise<void> {
  await write(`${renderJson({ v: 1, ...data }, 2)}\n`);
}

/** One of many, each on its own line, as they come. */
export async function printJsonLine({ write }: Pick<Platform, 'write'>, data: object): Promise<void> {
  await write(`${renderJson({ v: 1, ...data })}\n`);
}
