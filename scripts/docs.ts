// `npm run docs`: writes what is made from the command tree: man page, docs/commands.md, tables in the README
// and other pages. With `--check` it writes nothing, names what is out of date, and ends with 1 then.
import { readFileSync, writeFileSync } from 'node:fs';
import { currentDocs } from './docs/current.ts';

const check = process.argv.includes('--check');
const stale = (await currentDocs()).filter(({ file, text }) => {
  try {
    return readFileSync(file, 'utf8') !== text;
  } catch {
    return true;
  }
});
for (const { file, text } of stale) {
  if (!check) writeFileSync(file, text);
  console.log(check ? `${file} is out of date: run 'npm run docs'` : `${file} is written`);
}
process.exitCode = check && stale.length > 0 ? 1 : 0;
