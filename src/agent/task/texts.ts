/** Texts and lists of them, as a task's file writes them. Pure. */
import { RunlockError } from '../../errors.ts';

/** One text, or a list of texts, each once. @throws RunlockError `config` */
export function textsOf(key: string, below: readonly string[], value: unknown): readonly string[] {
  const list: readonly unknown[] = below.length > 0 ? [undefined] : Array.isArray(value) ? value : [value];
  const texts = list.filter((each) => typeof each === 'string');
  if (texts.length !== list.length)
    throw new RunlockError(
      'config',
      `${key}: write a list of texts in quotes, as in ${EXAMPLES[key] ?? '["a", "b"]'}`,
    );
  return [...new Set(texts)];
}

const EXAMPLES: Readonly<Record<string, string>> = {
  allow: '["ops", "ci"]',
  on: '["state:web/backends"]',
};

/** @throws RunlockError `config` */
export function toYesOrNo(key: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw new RunlockError('config', `${key}: write true or false, without quotes`);
}
