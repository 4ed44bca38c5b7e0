// What tests do on a machine with its own systemd, and look at there.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Machine } from './machine.ts';
import { eventually } from './processes.ts';

export type OnMachine = ReturnType<typeof onMachine>;

export function onMachine(machine: Machine) {
  /** Runs a command there; what it said. */
  const ok = async (...command: string[]): Promise<string> => {
    const { status, said } = await machine.run(...command);
    if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}: ${said}`);
    return said;
  };
  const note = (name: string) => readFileSync(join(machine.folder, name), 'utf8');
  return {
    ok,
    /** Properties of a unit, by name. */
    show: async (unit: string, ...properties: string[]): Promise<Record<string, string>> =>
      Object.fromEntries(
        (await ok('systemctl', 'show', unit, ...properties.map((name) => `--property=${name}`)))
          .trim()
          .split('\n')
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
      ),
    /** What the unit and its processes wrote to the journal, and systemd about it: `<priority> text`. */
    journal: async (unit: string) => {
      const fields = '--output-fields=PRIORITY,MESSAGE';
      const text = await ok('journalctl', '--sync', '--unit', unit, '--output=json', fields).catch(() => '');
      const lines = (text || (await ok('journalctl', '--unit', unit, '--output=json', fields)))
        .trim()
        .split('\n');
      return lines
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line) as { PRIORITY: string; MESSAGE: string })
        .map(({ PRIORITY, MESSAGE }) => `<${PRIORITY}> ${MESSAGE}`);
    },
    /** A file of the shared folder. */
    note,
    /** The same, once its last line is `end`. */
    noteOf: (name: string) =>
      eventually(() => {
        const text = note(name);
        if (!text.endsWith('end\n')) throw new Error(`${name} is not complete: ${text}`);
        return text;
      }, 30_000),
    /** A script in the shared folder: its path. */
    script: (name: string, text: string) => {
      const path = join(machine.folder, name);
      writeFileSync(path, `#!/bin/sh\n${text}\n`);
      chmodSync(path, 0o755);
      return path;
    },
  };
}
