// The man page, read by a real reader of man pages.
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { mandoc } from '../support/provision.ts';

const PAGE = 'docs/man/runlock.1';

test('nothing is wrong with it, but that it is of a version and not of a day', async () => {
  // The faults are the output; with any the exit code is not 0.
  const args = ['-T', 'lint', '-W', 'warning', PAGE];
  const { stdout, stderr } = await execa(await mandoc(), args, { reject: false });
  const faults = stdout
    .split('\n')
    .filter((line) => line !== '' && !/: missing date, using "": TH$/.test(line));
  expect({ faults, stderr }).toEqual({ faults: [], stderr: '' });
});

test('it shows commands, options, exit codes and examples as they are typed', async () => {
  const { stdout } = await execa(await mandoc(), ['-T', 'ascii', '-O', 'width=120', PAGE]);
  // Bold is each letter over itself.
  const text = stdout.replaceAll(/.[\b]/g, '');
  const sections = text.match(/^[A-Z][A-Z ]+$/gm);
  expect(sections).toEqual([
    ...['NAME', 'SYNOPSIS', 'DESCRIPTION', 'GLOSSARY', 'COMMANDS', 'CONFIGURATION FILE', 'RIGHTS'],
    ...['EXIT STATUS', 'ENVIRONMENT', 'FILES', 'EXAMPLES', 'SEE ALSO'],
  ]);
  expect(text).toMatch(/^ +runlock exec \[options\] -- <command> \[args\.\.\.\]$/m);
  expect(text).toMatch(/^ +-g, --group <path>$/m);
  expect(text).toMatch(/^ +session "web01" \{ policy = "write" \}$/m);
  expect(text).toMatch(/^ +\[groups\."prod\/web"\]$/m);
  expect(text).toMatch(/^ +75 +busy: no slot within --wait/m);
  expect(text).toMatch(/^ +runlock exec -g prod\/db --hold 4h --timeout 1h -- puppet agent --test$/m);
});
