// The commands that a page shows: `NODE$ COMMAND   # STATUS`, each with what it prints.

export interface Step {
  /** Which block of the text, from 0. */
  readonly block: number;
  /** Before the `$`; '' for none. */
  readonly node: string;
  readonly command: string;
  /** 0 unless given. */
  readonly status: number;
  /** Lines that it prints, among others. */
  readonly prints: string[];
}

/** Of all console blocks in a page's text. */
export function consoleSteps(page: string): readonly Step[] {
  const steps: Step[] = [];
  for (const [block, [, text = '']] of [...page.matchAll(/```console\n(.*?)```/gs)].entries()) {
    for (const line of text.trimEnd().split('\n')) {
      const [, node = '', command, status = '0'] = /^(\w*)\$ (.+?)(?: {3}# (\d+))?$/.exec(line) ?? [];
      if (command === undefined) steps.at(-1)?.prints.push(line);
      else steps.push({ block, node, command, status: Number(status), prints: [] });
    }
  }
  return steps;
}

/** Ages differ from one time to the next, and columns with them. */
export const ageless = (text: string) => text.replaceAll(/\b\d+(?:s|m\d*s?)\b/g, '0s').replaceAll(/ +/g, ' ');
