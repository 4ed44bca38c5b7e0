/** What runs left in maintenance, in words. */
import type { SlotView } from './report.ts';

export function leftOnText({ services, node }: NonNullable<SlotView['maintenance']>): string {
  return [...services, ...(node ? ['the whole node'] : [])].join(', ');
}
