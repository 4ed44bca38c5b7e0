/** States as people read them. Pure. */
import { formatAge } from '../text/age.ts';
import { visible } from '../text/visible.ts';
import type { StateDocument } from './document.ts';

/** A value on one line, in quotes where that tells where it ends. */
export function shortValue(value: string): string {
  const text = visible(value.replaceAll('\n', '\\n'));
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
  return value === '' || /\s|^['"]|['"]$/.test(value) ? `'${cut}'` : cut;
}

const LONGEST = 60;

/** Its value, and who set it when: `41, set by db01 3m ago`. `nowMs`: by the wall clock. */
export const stateText = (
  { value, by, at }: Pick<StateDocument, 'value' | 'by' | 'at'>,
  nowMs: number,
): string => `${shortValue(value)}, set by ${visible(by)} ${formatAge(nowMs - Date.parse(at))} ago`;
