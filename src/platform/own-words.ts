/** How this program is started again. */
import { readFileSync } from 'node:fs';

interface Own {
  readonly execPath: string;
  readonly argv: readonly string[];
}

/**
 * The single file is named as it was started where that is a full path: the file itself may be replaced, or be another one behind a
 * link, by then. The npm package is a script of Node.js.
 */
export function ownWords(
  { execPath, argv }: Own,
  { isNode, commandLine = readOwn }: { readonly isNode: boolean; readonly commandLine?: () => string },
): readonly [string, ...string[]] {
  const [first = ''] = commandLine().split('\0');
  const program = first.startsWith('/') ? first : execPath;
  return isNode ? [program, argv[1] ?? ''] : [program];
}

function readOwn(): string {
  try {
    return readFileSync('/proc/self/cmdline', 'utf8');
  } catch {
    return '';
  }
}
