/** Every command, in the order in which help names them. */
import type { Listed } from '../cli/command.ts';
import type { Platform } from './platform.ts';

export const commands: readonly Listed<Platform>[] = [
  { name: 'exec', load: async () => (await import('./exec/command.ts')).exec },
  { name: 'acquire', load: async () => (await import('./acquire/command.ts')).acquire },
  { name: 'status', load: async () => (await import('./status/command.ts')).status },
  { name: 'release', load: async () => (await import('./release/command.ts')).release },
  { name: 'history', load: async () => (await import('./history/command.ts')).history },
  { name: 'forget', load: async () => (await import('./forget/command.ts')).forget },
  { name: 'freeze', load: async () => (await import('./freeze/command.ts')).freeze },
  { name: 'thaw', load: async () => (await import('./thaw/command.ts')).thaw },
  { name: 'state', load: async () => (await import('./state/command.ts')).state },
  { name: 'wait', load: async () => (await import('./wait/command.ts')).wait },
  { name: 'task', load: async () => (await import('./task/command.ts')).task },
  { name: 'agent', load: async () => (await import('./agent/command.ts')).agent },
  { name: 'job', load: async () => (await import('./job/command.ts')).job },
  { name: 'gate', load: async () => (await import('./gate/command.ts')).gate },
  { name: 'doctor', load: async () => (await import('./doctor/command.ts')).doctor },
  { name: 'policy', load: async () => (await import('./policy/command.ts')).policy },
  { name: 'completion', load: async () => (await import('./completion/command.ts')).completion },
  { name: 'config', load: async () => (await import('./config/command.ts')).config },
  { name: '__complete', load: async () => (await import('./complete/command.ts')).complete },
];
