/** `runlock job logs`: the output of a job's run on a node → stdout. */
import { jobText } from '../../jobs/keys.ts';
import { readJobLog } from '../../jobs/read-log.ts';
import type { LogBytes } from '../../jobs/read-log.ts';
import { harmless } from '../../text/harmless.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine } from '../print.ts';
import type { ConsulWays } from '../with-consul.ts';
import type { JobOptions, LogsRequest } from './request.ts';

/** @throws RunlockError as `readJobLog`. */
export async function logs(
  { consul, deps, signal: told }: ConsulWays,
  options: JobOptions & LogsRequest,
  platform: Platform,
): Promise<number> {
  const { prefix, ref, node, follow, lines, waitMs } = options;
  const left = new AbortController();
  // If the reader of the output has left, nobody needs more of it.
  platform.stdout.on('error', () => left.abort());
  const signal = AbortSignal.any([told, left.signal]);
  const printer = printerOf(options, platform);
  try {
    await readJobLog({ consul, deps, prefix, ref, node, follow, lines, waitMs, signal }, printer.hear);
  } catch (error) {
    if (told.aborted) throw told.reason;
    if (!left.signal.aborted) throw error;
  }
  await printer.end();
  return 0;
}

interface Printer {
  readonly hear: (piece: LogBytes) => Promise<void>;
  readonly end: () => Promise<void>;
}

/** Bytes as they are, except on a terminal, which would obey some of them. */
function printerOf({ ref, node, json, raw }: JobOptions & LogsRequest, platform: Platform): Printer {
  const nothing = () => Promise.resolve();
  if (json) {
    const decoder = new TextDecoder();
    const line = (from: number, text: string) =>
      printJsonLine(platform, { event: 'log', job: jobText(ref), node, from, text });
    return {
      hear: ({ from, bytes }) => line(from, decoder.decode(bytes, { stream: true })),
      end: nothing,
    };
  }
  if (raw || !platform.stdout.isTTY) return { hear: ({ bytes }) => platform.write(bytes), end: nothing };
  const shown = harmless();
  return {
    hear: ({ bytes }) => platform.write(shown.take(bytes)),
    end: () => platform.write(shown.end()),
  };
}
