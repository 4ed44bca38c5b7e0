/** Shortages of the system, by errno. The file or program at hand is not at fault. */

const SHORTAGES: Readonly<Record<string, string>> = {
  EMFILE: 'runlock has too many open files; raise the limit (ulimit -n, LimitNOFILE=)',
  ENFILE: 'this host has too many open files; stop processes that hold many, or raise fs.file-max (sysctl)',
  EAGAIN:
    'too many processes; stop some, or raise the limit (ulimit -u, kernel.pid_max, TasksMax= of the unit)',
  ENOMEM: 'this host is out of memory; free some',
};

/** The shortage and its remedy, worded as part of a sentence. Undefined: `code` is not a shortage. */
export function shortageOf(code: string | undefined): string | undefined {
  return code !== undefined && Object.hasOwn(SHORTAGES, code) ? SHORTAGES[code] : undefined;
}

/** The same for an error or any of its causes. */
export function shortageIn(error: unknown): string | undefined {
  for (let each = error; each instanceof Error; each = each.cause) {
    const found = 'code' in each && typeof each.code === 'string' ? shortageOf(each.code) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
