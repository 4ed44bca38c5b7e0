/** What the system was short of, by errno: nothing is wrong with the file that was opened, or the program that was started. */

const SHORTAGES: Readonly<Record<string, string>> = {
  EMFILE: 'runlock may open no more files; raise its limit (ulimit -n, LimitNOFILE=)',
  ENFILE: 'this system can open no more files; end what has many open, or raise fs.file-max (sysctl)',
  EAGAIN:
    'no more processes may be started; end some, or raise the limit (ulimit -u, kernel.pid_max, TasksMax= of its unit)',
  ENOMEM: 'this system has no memory left; free some',
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
