/** Every command, in the order in which help names them. */
import type { Commands } from '../cli/parse.ts';
import { acquire } from './acquire/command.ts';
import { complete } from './complete/command.ts';
import { completion } from './completion/command.ts';
import { config } from './config/command.ts';
import { doctor } from './doctor/command.ts';
import { exec } from './exec/command.ts';
import { freeze } from './freeze/command.ts';
import { gate } from './gate/command.ts';
import { history } from './history/command.ts';
import { release } from './release/command.ts';
import { status } from './status/command.ts';
import { thaw } from './thaw/command.ts';
import type { Platform } from './platform.ts';

export const commands: Commands<Platform> = [
  exec,
  acquire,
  status,
  release,
  history,
  freeze,
  thaw,
  gate,
  doctor,
  completion,
  config,
  complete,
];
