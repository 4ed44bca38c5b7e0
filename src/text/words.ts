/** Checks names, and reads yes or no. */

const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;

/** Whether `text` can name a node, a service, or one segment of a group. */
export const isName = (text: string): boolean => NAME.test(text) && !text.includes('..');

/** Reads a boolean like Go's strconv.ParseBool, which the `consul` program uses. Undefined: neither true nor false. */
export function toBoolean(word: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(word)) return true;
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(word)) return false;
  return undefined;
}
