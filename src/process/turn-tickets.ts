/** The tickets of a node's turn: how they are written, and who of several has the turn (docs/adr/0041). Pure. */

export interface Ticket {
  readonly run: string;
  readonly pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  /** As `Host.bootId`. */
  readonly bootId: string;
  /** Base name only. */
  readonly command: string;
  readonly groups: readonly string[];
  /** When the run began to wait or to run, ISO 8601 in UTC. */
  readonly since: string;
  /** The run with the highest ticket when this one was made. Absent: there was none. */
  readonly behind?: string;
}

type Decision =
  | { readonly kind: 'held'; readonly by: Ticket }
  /** `dead`: numbers of tickets below it. */
  | { readonly kind: 'free'; readonly dead: readonly number[] };

/**
 * Whether a run with ticket `own` has the turn: nobody below it is alive. Undefined: the run has no ticket yet.
 * @param numbers in their order.
 * @param living the ticket, if it is one and its run is alive.
 */
export function decide(
  numbers: readonly number[],
  living: (number: number) => Ticket | undefined,
  own = Infinity,
): Decision {
  const below = numbers.filter((number) => number < own);
  for (const number of below) {
    const ticket = living(number);
    if (ticket) return { kind: 'held', by: ticket };
  }
  return { kind: 'free', dead: below };
}

/** As many as a ticket can have and still be told apart. */
const NUMBER = /^[1-9]\d{0,14}$/;

/** The number of a ticket by its file's name; undefined: it is none. */
export function numberOf(name: string, start: string): number | undefined {
  const digits = name.startsWith(start) ? name.slice(start.length) : '';
  return NUMBER.test(digits) ? Number(digits) : undefined;
}

/** As runs have them. Without dots, so that no node's name ends in what another's begins with. */
const RUN_ID = /^[\w-]{1,64}$/;

/** The run whose ticket says that it waits in a queue, by the file's name; undefined: it is none. */
export function runOf(name: string, start: string): string | undefined {
  const run = name.startsWith(start) ? name.slice(start.length) : '';
  return RUN_ID.test(run) ? run : undefined;
}

/** What symlink(2) takes is 4,095 bytes. */
const MOST_BYTES = 4_000;
const MOST_GROUPS = 20;
const LONGEST = 200;

/** Leaves groups out that it has no room for. */
export function encodeTicket(ticket: Ticket): string {
  const command = ticket.command.slice(0, LONGEST);
  for (let most = MOST_GROUPS; ; most--) {
    const text = JSON.stringify({ v: 1, ...ticket, command, groups: ticket.groups.slice(0, most) });
    if (Buffer.byteLength(text) <= MOST_BYTES || most === 0) return text;
  }
}

/** Undefined: it is no ticket, or one in another format. */
export function decodeTicket(text: string): Ticket | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined;
  const { v, run, pid, startTime, bootId, command, groups, since, behind } = parsed as Record<
    string,
    unknown
  >;
  const isTicket =
    v === 1 &&
    [run, startTime, bootId, command, since].every((one) => typeof one === 'string') &&
    Number.isSafeInteger(pid) &&
    (pid as number) > 0 &&
    Array.isArray(groups) &&
    groups.every((one) => typeof one === 'string') &&
    !Number.isNaN(Date.parse(since as string)) &&
    (behind === undefined || typeof behind === 'string');
  return isTicket ? (parsed as Ticket) : undefined;
}
