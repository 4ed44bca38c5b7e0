/** What the system was short of, by errno: nothing is wrong with the file that was opened, or the program that was started. */

const SHORTAGES: Readonly<Record<string, string>> = {
  EMFILE: 'runlock has too many open files; raise the limit (ulimit -n, LimitNOFILE=)',
  ENFILE: 'this host has too many open files; stop processes that hold many, or raise fs.file-max (sysctl)',
  EAGAIN:
    'too many processes; stop some, or raise the limit (ulimit -u, kernel.pid_max, TasksMax= of the unit)',
  ENOMEM: 'this host is out of memory; free some',
};

/** In the words of a sentence, with what to do. Undefined: `code` says something else. */
export function shortageOf(code: string | undefined): string | undefined {
  return code !== undefined && Object.hasOwn(SHORTAGES, code) ? SHORTAGES[code] : undefined;
}

/** The same for an error, or what it comes from. */
export function shortageIn(error: unknown): string | undefined {
  for (let each = error; each instanceof Error; each = each.cause) {
    const found = 'code' in each && typeof each.code === 'string' ? shortageOf(each.code) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
