/** States in words. Pure. */
import { formatAge } from '../text/age.ts';
import { visible } from '../text/visible.ts';
import type { StateDocument } from './document.ts';

/** A value on one line, in quotes if its end would not be clear. */
export function shortValue(value: string): string {
  const cut = shorten(value);
  return value === '' || /\s|^['"]|['"]$/.test(value) ? `'${cut}'` : cut;
}

const LONGEST = 60;

/** Text on one line, cut between characters, so that neither half of one nor a part of an escape such as `\x1b` is left. */
export function shorten(text: string): string {
  let shown = '';
  // Where to cut if all of it turns out to be too long: there is room for the dots.
  let kept = '';
  for (const char of text) {
    shown += char === '\n' ? '\\n' : visible(char);
    if (shown.length > LONGEST) return `${kept}…`;
    if (shown.length < LONGEST) kept = shown;
  }
  return shown;
}

/**
 * Its value, and who set it when: `41, set by db01 3m ago`, or by a run: `published by a run of db01 3m ago`. `nowMs`: by
 * the wall clock.
 */
export const stateText = (
  { value, by, at, ...ofRun }: Pick<StateDocument, 'value' | 'by' | 'at' | 'published' | 'while'>,
  nowMs: number,
): string => {
  const how = ofRun.published ? 'published by a run of' : ofRun.while ? 'set during a run of' : 'set by';
  return `${shortValue(value)}, ${how} ${shorten(by)} ${formatAge(nowMs - Date.parse(at))} ago`;
};
