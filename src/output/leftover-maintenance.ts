/** What runs left in maintenance, in words. */
import type { SlotView } from './views.ts';

export function leftOnText({ services, node }: NonNullable<SlotView['maintenance']>): string {
  return [...services, ...(node ? ['the whole node'] : [])].join(', ');
}
