/** `--reason`: one line, which runlock shows wherever people ask why. */
import { usage } from '../cli/values.ts';

/** In characters; far more than fits on a line. */
const LONGEST_REASON = 500;

export function parseReason(text: string): string {
  const reason = text.trim();
  if (reason === '') throw usage('empty; say why');
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(reason))
    throw usage('not one line; remove line breaks and other control characters');
  if (reason.length > LONGEST_REASON)
    throw usage(`too long (${reason.length} characters); ${LONGEST_REASON} are allowed`);
  return reason;
}
