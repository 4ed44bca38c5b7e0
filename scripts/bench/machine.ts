/** What the figures were measured on. */
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem, type } from 'node:os';

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly system: string;
  /** Over the last minute: more than a little means that others worked there too. */
  readonly load: number;
}

export function thisMachine(): Machine {
  const all = cpus();
  return {
    processor: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    memoryGb: Math.round(totalmem() / 1e8) / 10,
    kernel: `${type()} ${release()}`,
    system: /^PRETTY_NAME="(.*)"$/m.exec(osRelease())?.[1] ?? 'unknown',
    load: Math.round((loadavg()[0] ?? 0) * 10) / 10,
  };
}

function osRelease(): string {
  try {
    return readFileSync('/etc/os-release', 'utf8');
  } catch {
    return '';
  }
}
