// `npm run build:deb`: the Debian package around the single program that `npm run build:binary` makes. The package's
// file name goes to stdout. SOURCE_DATE_EPOCH is its date, else that of the last commit; DEBFULLNAME and DEBEMAIL
// name the maintainer, as for Debian's own tools.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { buildDeb } from './deb/build.ts';

const { values } = parseArgs({
  options: {
    program: { type: 'string', default: `build/binary/runlock-linux-${process.arch}` },
    out: { type: 'string', default: 'build/deb' },
  },
});
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
const { DEBFULLNAME = 'the runlock authors', DEBEMAIL = 'runlock@packages.invalid' } = process.env;
try {
  if (!existsSync(values.program))
    throw new Error("no such file; run 'npm run build:binary' first, or name one with --program FILE");
  console.log(
    buildDeb({ ...values, version, maintainer: `${DEBFULLNAME} <${DEBEMAIL}>`, date: dateOfBuild() }),
  );
} catch (error) {
  console.error(`build:deb: ${values.program}: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}

function dateOfBuild(): Date {
  const given = process.env['SOURCE_DATE_EPOCH'];
  const seconds = given ?? execFileSync('git', ['log', '-1', '--format=%ct'], { encoding: 'utf8' }).trim();
  if (!/^\d+$/.test(seconds)) throw new Error(`SOURCE_DATE_EPOCH=${seconds} is no number of seconds`);
  return new Date(Number(seconds) * 1000);
}
