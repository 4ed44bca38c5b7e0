// `npm run sbom`: what is in the programs (CycloneDX) → stdout, once `npm run build:binary` has made them. npm knows no
// more than what the project is developed with; the bundler says what it took of that.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { lockedRuntime, runtimes } from './facts.js';
import { packagesOf } from './licenses.js';

const BUILT = 'build/binary';

/** `name@version`, as npm refers to a package. */
function refOf(folder) {
  const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return `${name}@${version}`;
}

function refsOfPrograms() {
  const metafile = `${BUILT}/metafile.json`;
  if (!existsSync(metafile)) throw new Error(`no ${metafile}; run 'npm run build:binary' first`);
  const inside = Object.entries(runtimes)
    .filter(([target]) => existsSync(`${BUILT}/runlock-linux-${target}`))
    .map(([target, name]) => `${name}@${lockedRuntime(target).version}`);
  return [...packagesOf(JSON.parse(readFileSync(metafile, 'utf8'))).map(refOf), ...inside];
}

/** @throws Error when npm does not know one of `refs`. */
function narrow(sbom, refs) {
  const { name } = JSON.parse(readFileSync('package.json', 'utf8'));
  const root = sbom.metadata.component['bom-ref'];
  const components = refs.sort().map((ref) => {
    const found = sbom.components.find((each) => each['bom-ref'] === ref);
    if (!found) throw new Error(`npm does not know ${ref}; run 'npm ci'`);
    // To npm all of it is for development: the package that it publishes asks for nothing.
    const properties = found.properties.filter((each) => each.name !== 'cdx:npm:package:development');
    return { ...found, scope: 'required', properties };
  });
  const dependencies = sbom.dependencies
    .filter(({ ref }) => ref === root || refs.includes(ref))
    .map(({ ref, dependsOn }) => ({
      ref,
      dependsOn: [
        ...dependsOn.filter((each) => refs.includes(each)),
        ...(ref === root ? refs.filter((each) => each.startsWith('@oven/')) : []),
      ],
    }));
  // npm names the project after its folder.
  const component = { ...sbom.metadata.component, name };
  const metadata = { ...sbom.metadata, lifecycles: [{ phase: 'build' }], component };
  return { ...sbom, metadata, components, dependencies };
}

try {
  const options = ['--package-lock-only', '--sbom-format=cyclonedx', '--sbom-type=application'];
  const refs = refsOfPrograms();
  const said = execFileSync('npm', ['sbom', ...options], { encoding: 'utf8', maxBuffer: 1e8 });
  process.stdout.write(`${JSON.stringify(narrow(JSON.parse(said), refs), null, 2)}\n`);
} catch (error) {
  console.error(`sbom: ${error.message}`);
  process.exitCode = 1;
}
