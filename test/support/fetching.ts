// Says on stdout what is being fetched, how far it is, and what it came to.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Runs `fetch`, which writes into `folder`; resolves and rejects as it does. */
export type ShowFetching = <T>(
  what: { readonly name: string; readonly folder: string },
  fetch: () => Promise<T>,
) => Promise<T>;

export const silently: ShowFetching = (_, fetch) => fetch();

interface Screen {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const LOOK_MS = 500;

/** A line at the start and one at the end; on a terminal the size so far, too. One at a time. */
export function fetchingOn(screen: Screen): ShowFetching {
  return async ({ name, folder }, fetch) => {
    const begun = performance.now();
    const line = (text: string) => screen.write(`${screen.isTTY ? '\r\x1b[K' : ''}${text}`);
    line(`fetching ${name} from Debian ...${screen.isTTY ? '' : '\n'}`);
    // What is unpacked counts too: all that matters is that it moves.
    const look = async () => {
      const size = await sizeOf(folder);
      if (!over) line(`fetching ${name} from Debian ... ${megabytes(size)}`);
    };
    let over = false;
    const timer = screen.isTTY ? setInterval(() => void look(), LOOK_MS) : undefined;
    let end = 'failed';
    try {
      const made = await fetch();
      end = 'done';
      return made;
    } finally {
      over = true;
      clearInterval(timer);
      line(`fetching ${name} from Debian: ${end} after ${Math.round((performance.now() - begun) / 1000)}s\n`);
    }
  };
}

export const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;

/** Bytes of all files below it; 0 where there is no such folder, and a file that goes meanwhile does not count. */
export async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      stat(join(entry.parentPath, entry.name)).then(
        ({ size }) => size,
        () => 0,
      ),
    );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
