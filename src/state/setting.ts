/** What a run is to publish: `PATH=VALUE`. Pure. */
import { RunlockError } from '../errors.ts';
import { checkValue } from './document.ts';
import { pathFault } from './path.ts';

export interface Setting {
  readonly path: string;
  readonly value: string;
}

/** @throws RunlockError `usage`: no value, no valid path, or a value that is too long. */
export function parseSetting(text: string): Setting {
  const at = text.indexOf('=');
  if (at === -1) throw new RunlockError('usage', "has no value; write PATH=VALUE, as in 'db/schema=42'");
  const [path, value] = [text.slice(0, at), text.slice(at + 1)];
  const fault = pathFault(path);
  if (fault !== undefined) throw new RunlockError('usage', fault);
  return { path, value: checkValue(value) };
}
