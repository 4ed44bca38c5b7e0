/** `runlock gate` as text. */
import { paint } from '../text/style.ts';
import { visible } from '../text/visible.ts';

/** The verdict for one service; `said`: the reason, in one line. */
export interface GateLine {
  readonly service: string;
  readonly open: boolean;
  readonly said: string;
}

/** `web is open: 0 of 5 offline (max 1)`, a line for each service. */
export function renderGate(lines: readonly GateLine[], color: boolean): string {
  return lines
    .map(({ service, open, said }) => {
      const word = open ? paint('open', 'green', color) : paint('closed', 'yellow', color);
      return `${visible(service)} is ${word}: ${visible(said)}\n`;
    })
    .join('');
}
