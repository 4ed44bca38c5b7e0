// The single file for the other architecture, built here and run by qemu: the same program, beside one of this machine's.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { dependsByLoader } from '../support/libraries.ts';
import { end, eventually, scene } from '../support/processes.ts';
import { clean } from '../support/program.ts';
import { qemuAarch64 } from '../support/provision.ts';
import { runlock } from '../support/runlock.ts';

const OWN = `build/binary/runlock-linux-${process.arch}`;

// On a machine of that kind all other tests run this file.
describe.skipIf(process.arch === 'arm64')('the single file for arm64, by qemu', { timeout: 240_000 }, () => {
  const agent = useAgent();
  let qemu: string;
  let file: string;

  // qemu, a C library for it and Bun for arm64 may have to be fetched first.
  beforeAll(async () => {
    const made = scene();
    await execa(process.execPath, ['scripts/build-binary.js', '--outdir', made.folder, 'arm64']);
    file = join(made.folder, 'runlock-linux-arm64');
    qemu = await qemuAarch64();
    return () => made.clean();
  }, 300_000);

  test('is a program for arm64, and says what this machine’s own one says of itself', async () => {
    // ELF: 64 bits, little-endian, e_machine 183 (AArch64).
    const head = readFileSync(file).subarray(0, 20);
    expect(head.subarray(0, 6)).toEqual(Buffer.from('\x7FELF\x02\x01', 'latin1'));
    expect(head.readUInt16LE(18)).toBe(183);
    const withoutMoment = (said: string) => said.replace(/^commit .+, built [^,]+/m, '');
    for (const option of ['--version', '--help', '--licenses']) {
      const { stdout, stderr } = await execa(qemu, [file, option]);
      const { stdout: own } = await execa(OWN, [option]);
      expect({ said: withoutMoment(stdout), stderr }).toEqual({ said: withoutMoment(own), stderr: '' });
    }
  });

  test('asks the loader for no more than the package depends on', async () => {
    const tracing = ['-E', 'LD_TRACE_LOADED_OBJECTS=1', '-E', 'LD_VERBOSE=1'];
    const { stdout } = await execa(qemu, [...tracing, file]);
    expect(readFileSync('packaging/deb/control', 'utf8')).toContain(
      `\nDepends: ${dependsByLoader(stdout)}\n`,
    );
  });

  test('runs a command under its lock, and keeps another node out meanwhile', async () => {
    const script = 'echo "in $RUNLOCK_RUN_GROUP"; read -r word; echo "heard $word"; exit 3';
    const words = ['exec', '-g', 'arm', '--node', 'web01', '--hold', 'none', '--', 'sh', '-c', script];
    const child = spawn(qemu, [file, ...words], { env: { ...clean, ...agent.env }, stdio: 'pipe' });
    onTestFinished(() => end(child.pid ?? 0));
    const said = Promise.all([text(child.stdout), text(child.stderr)]);
    const holder = async () => (await agent.kv.get('runlock/arm/.slot/0/owner'))?.Value ?? '';
    await eventually(async () => expect(await holder()).toContain('"node":"web01"'), 60_000);
    const other = await runlock(agent, ['exec', '-g', 'arm', '--node', 'web02', '-w', '0', '--', 'true']);
    expect(other.status).toBe(75);
    child.stdin.end('you\n');
    expect(await once(child, 'close')).toEqual([3, null]);
    expect(await said).toEqual(['in arm\nheard you\n', '']);
    expect((await agent.kv.get('runlock/arm/.runs/web01'))?.Value).toContain('"exitCode":3');
    expect(await holder()).toBe('');
  });
});
