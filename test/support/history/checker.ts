/** Judges a history by the eight promises of docs/protocol.md. Pure; it knows nothing of how runlock keeps them. */
import type {
  Act,
  Cost,
  History,
  OfflineTrace,
  Process,
  RunTrace,
  SlotTrace,
  TicketTrace,
} from './history.ts';

export interface Broken {
  readonly promise: 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;
  readonly what: string;
}

export interface Verdict {
  readonly broken: readonly Broken[];
  /** How much there was to judge: a history that shows nothing breaks nothing. */
  readonly judged: { readonly runs: number; readonly inOrder: number; readonly claims: number };
}

type Claim = NonNullable<SlotTrace['claim']>;

/** Two readings of the clock, which is 10 ms exact, and a look that comes a little after the change that it shows. */
const SLACK_MS = 50;
/** A lock has to be seen missing for so long before anybody may follow; 1 s for the looks of two observers. */
const VANISHED_MS = 59_000;
/** What a run may cost; renewals aside. */
const MOST = { requests: 12, bytes: 4_096, growth: 1.1 };

export function judge(history: History): Verdict {
  const served = servedTickets(history);
  return {
    broken: [
      ...overlaps(history),
      ...grants(history),
      ...outOfOrder(history, served),
      ...claimsGone(history),
      ...tokens(history.runs),
      ...leftBehind(history),
      ...costs(history.costs ?? []),
      ...takenOffline(history.offline ?? []),
    ],
    judged: { runs: history.runs.length, inOrder: served.length, claims: changesOfHands(history).length },
  };
}

/** The last one, where what is held was asked for again. */
export function command(run: RunTrace): Process | undefined {
  return run.processes.findLast(({ role }) => role === 'command');
}

const endedWell = (run: RunTrace): boolean => command(run)?.exitCode === 0;

/** From its first sign of life to its last. What a run that ended well leaves behind is a daemon, and may live. */
function life(run: RunTrace): { startMs: number; endMs: number } {
  const own = command(run);
  const startMs = Math.min(...run.processes.map((one) => one.startMs));
  const endMs = own && endedWell(run) ? own.lastMs : Math.max(...run.processes.map((one) => one.lastMs));
  return { startMs, endMs };
}

/** 1: at most N runs overlap. */
function overlaps({ slots, runs }: History): Broken[] {
  const lives = runs.map((run) => ({ run, ...life(run) })).sort((a, b) => a.startMs - b.startMs);
  return lives.flatMap(({ run, startMs }, i) => {
    const beside = lives.slice(0, i).filter((other) => other.endMs > startMs);
    if (beside.length < slots) return [];
    const names = beside.map((other) => `${other.run.node} (until ${other.endMs})`);
    return [broken(1, `${run.node} started at ${startMs} beside ${names.join(', ')}, with ${slots} slots`)];
  });
}

/** 2: a grant means that the claim was absent, mine, or past its hold. */
function grants(history: History): Broken[] {
  const slots = new Map<number, RunTrace[]>();
  for (const run of history.runs) slots.set(run.slot, [...(slots.get(run.slot) ?? []), run]);
  return [...slots.values()].flatMap((runs) => {
    const order = runs.sort((a, b) => a.token - b.token);
    return order.flatMap((run, i) => {
      const before = order[i - 1];
      if (!before || before.node === run.node) return [];
      const { startMs } = life(run);
      const claim = lastClaim(history, before);
      if (mayGo(history, { node: before.node, run: before.run, ...claim }, startMs)) return [];
      return [broken(2, `${run.node} got slot ${run.slot} at ${startMs} although ${before.node} claimed it`)];
    });
  });
}

function lastClaim({ slotTraces }: History, { run, slot }: RunTrace): Claim | undefined {
  return slotTraces.findLast((trace) => trace.slot === slot && trace.claim?.run === run)?.claim;
}

interface ServedTicket {
  readonly ticket: TicketTrace;
  readonly index: number;
}

function servedTickets({ served, tickets }: History): ServedTicket[] {
  return served.flatMap(({ session, index }) => {
    const ticket = tickets.find((one) => one.session === session);
    return ticket ? [{ ticket, index }] : [];
  });
}

/** 3: nobody is served while an older ticket waits. */
function outOfOrder({ tickets }: History, served: readonly ServedTicket[]): Broken[] {
  return served.flatMap(({ ticket, index }) => {
    const passed = tickets.filter(
      (other) => other.createIndex < ticket.createIndex && other.lastIndex >= index,
    );
    return passed.map((other) =>
      broken(
        3,
        `${ticket.node} (ticket ${ticket.createIndex}) was served at ${index}, before ${other.node} (ticket ${other.createIndex})`,
      ),
    );
  });
}

interface Change {
  readonly before: SlotTrace & { readonly claim: Claim };
  readonly after: SlotTrace;
}

/** Where a slot's claim went, or became another run's. */
function changesOfHands({ slotTraces }: History): Change[] {
  return slotTraces.flatMap((after, i) => {
    const before = slotTraces.slice(0, i).findLast(({ slot }) => slot === after.slot);
    if (before?.claim === undefined || before.claim.run === after.claim?.run) return [];
    return [{ before: { ...before, claim: before.claim }, after }];
  });
}

/** 4: a claim goes only by its run, its owner, its hold's end, or an operator. */
function claimsGone(history: History): Broken[] {
  return changesOfHands(history).flatMap(({ before, after }) => {
    if (after.claim?.node === before.claim.node) return [];
    if (mayGo(history, unseenHeir(history, { before, after }) ?? before.claim, after.atMs)) return [];
    const to = after.claim ? `became ${after.claim.node}'s` : 'went';
    return [broken(4, `the ${before.claim.state} claim of ${before.claim.node} ${to} at ${after.atMs}`)];
  });
}

/** The claim of the owner's next run where that took the slot back, and was over before anybody looked again. */
function unseenHeir({ runs }: History, { before, after }: Change) {
  const { node, hold, index } = before.claim;
  const heir = runs.findLast(
    (run) =>
      run.node === node &&
      run.slot === before.slot &&
      run.token > index &&
      run.token < (after.claim?.index ?? Infinity) &&
      life(run).startMs <= after.atMs,
  );
  return heir && { node, hold, run: heir.run };
}

/** Whether the claim of a run may be gone by `atMs`. */
function mayGo(history: History, claim: Pick<Claim, 'node' | 'run'> & Partial<Claim>, atMs: number): boolean {
  const run = history.runs.find((one) => one.run === claim.run);
  const sinceMs = endOfRunBefore(history, claim, atMs);
  const acts = history.acts.filter((act) => concerns(act, claim.node) && act.atMs <= atMs);
  const has = (kind: Act['kind']) =>
    acts.some((act) => act.kind === kind && (act.atMs >= sinceMs || kind === 'by-hand'));
  if (has('by-hand') || has('evict') || has('let-go')) return true;
  // A claim without a command was declined, unless its runlock was killed.
  if (!run && (!has('kill') || has('clear'))) return true;
  if (run && endedWell(run)) return true;
  if (run && has('clear')) return life(run).endMs <= atMs + SLACK_MS;
  return isPastHold(history, { run, claim, atMs });
}

/** What was done to a node before that explains nothing of a later run of it. */
function endOfRunBefore(history: History, { node, run }: Pick<Claim, 'node' | 'run'>, atMs: number): number {
  const own = history.runs.find((one) => one.run === run);
  const isEarlier = (other: RunTrace) => (own ? other.token < own.token : life(other).startMs < atMs);
  const others = history.runs.filter((other) => other.node === node && other.run !== run && isEarlier(other));
  return Math.max(-Infinity, ...others.map((other) => life(other).endMs)) - SLACK_MS;
}

const concerns = (act: Act, node: string) => act.node === undefined || act.node === node;

function isPastHold(
  { slotTraces, recorded = [], hold: everybodys }: History,
  {
    run,
    claim,
    atMs,
  }: { run: RunTrace | undefined; claim: Pick<Claim, 'run'> & Partial<Claim>; atMs: number },
): boolean {
  const hold = claim.hold ?? everybodys;
  if (hold === undefined || hold === 'forever') return false;
  if (hold !== 'none') return claim.heldUntilMs !== undefined && atMs + SLACK_MS >= claim.heldUntilMs;
  if (run && command(run)?.exitCode !== undefined) return true;
  // It was killed, and runlock lived to give the slot back.
  if (run && recorded.includes(run.run) && life(run).endMs <= atMs + SLACK_MS) return true;
  const own = slotTraces.filter((trace) => trace.claim?.run === claim.run && trace.atMs <= atMs);
  const held = own.findLastIndex((trace) => trace.lockedBy !== undefined);
  const unlocked = own[held + 1];
  return unlocked !== undefined && atMs - unlocked.atMs >= VANISHED_MS;
}

/** 5: the fencing tokens of a slot only grow. */
function tokens(runs: readonly RunTrace[]): Broken[] {
  const order = [...runs].sort((a, b) => life(a).startMs - life(b).startMs);
  return order.flatMap((run, i) => {
    const own = [...(run.before ?? []), run.token];
    const earlier = order.slice(0, i).filter(({ slot }) => slot === run.slot);
    const others = earlier.map(({ node, token }) => ({ node, token }));
    return own.flatMap((token, at) => {
      const before = [...others, ...own.slice(0, at).map((one) => ({ node: run.node, token: one }))];
      const larger = before.find((other) => other.token >= token);
      if (!larger) return [];
      const what = `slot ${run.slot}: ${run.node} has token ${token}, after ${larger.node}'s ${larger.token}`;
      return [broken(5, what)];
    });
  });
}

/** 6: nothing of a run stays after it ended well, apart from `.runs/<node>` and the group's `.tail` and `.last`. */
function leftBehind({ left, slotTraces, runs, acts, tickets }: History): Broken[] {
  const killed = acts.filter(({ kind }) => kind === 'kill');
  const stopped = acts.filter(({ kind }) => kind === 'stop');
  const wasKilled = (node: string | undefined) => killed.some((act) => concerns(act, node ?? ''));
  const keys = left.keys.filter((key) => {
    const [kind, name = '', part] = key.split('/');
    if (kind === '.tail' || kind === '.last' || kind === '.runs') return false;
    if (kind === '.node') return !wasKilled(name);
    if (kind === '.queue') return !wasKilled(tickets.find(({ session }) => session === name)?.node);
    if (kind !== '.slot') return true;
    const claim = slotTraces.findLast((trace) => trace.slot === Number(name))?.claim;
    if (part === 'lock') return !wasKilled(claim?.node);
    const run = runs.find((one) => one.run === claim?.run);
    if (run) return endedWell(run);
    // Its command was told to end before it noted that it had started.
    const wasStopped = stopped.some((act) => concerns(act, claim?.node ?? ''));
    return !wasStopped && !wasKilled(claim?.node) && !byHand(acts);
  });
  const sessions = Math.max(0, left.sessions.length - killed.length);
  return [
    ...keys.map((key) => broken(6, `${key} was left behind`)),
    ...(sessions > 0 ? [broken(6, `${sessions} sessions were left behind`)] : []),
  ];
}

const byHand = (acts: readonly Act[]) => acts.some(({ kind }) => kind === 'by-hand');

/** 7: requests and bytes a run do not grow with the number of waiters. */
function costs(all: readonly Cost[]): Broken[] {
  const each = all
    .map(({ waiters, runs, requests, bytes }) => ({
      waiters,
      requests: requests / runs,
      bytes: bytes / runs,
    }))
    .sort((a, b) => a.waiters - b.waiters);
  return (['requests', 'bytes'] as const).flatMap((unit) =>
    each.flatMap((cost, i) => {
      const before = each[i - 1];
      if (cost[unit] > MOST[unit])
        return [broken(7, `${cost[unit]} ${unit} a run with ${cost.waiters} waiters`)];
      if (!before || cost[unit] <= before[unit] * MOST.growth) return [];
      return [
        broken(
          7,
          `${cost[unit]} ${unit} a run with ${cost.waiters} waiters, ${before[unit]} with ${before.waiters}`,
        ),
      ];
    }),
  );
}

/** Who was ill for so long was seen so by whoever looked at the gate. */
const ILL_MS = 1_000;

/** 8: runlock never takes more of a service offline than its gate allows, and none beside those who were ill before. */
function takenOffline(all: readonly OfflineTrace[]): Broken[] {
  return all.flatMap((trace) => {
    const sinceMs = new Map<string, number>();
    // Those who were healthy until runlock took them out.
    const taken = new Set<string>();
    return trace.looks.flatMap((look) => {
      const newly = follow(look, { sinceMs, taken });
      const ill = [...sinceMs].filter(([node, ms]) => !taken.has(node) && look.atMs - ms >= ILL_MS);
      const names = [...taken, ...(newly > 0 ? ill.map(([node]) => `${node} (ill)`) : [])];
      const limit = trace.limitOf(look.total);
      if (names.length <= limit) return [];
      const what = `${trace.service}: ${names.join(', ')} offline at ${look.atMs}, of ${look.total}; ${limit} may be`;
      return [broken(8, what)];
    });
  });
}

type Look = OfflineTrace['looks'][number];

/** Brings what is known up to this look; how many were taken out since the one before. */
function follow(
  { atMs, offline }: Look,
  { sinceMs, taken }: { sinceMs: Map<string, number>; taken: Set<string> },
): number {
  const before = taken.size;
  const isRunlocks = ({ maintenance }: Look['offline'][number]) =>
    maintenance.some((reason) => reason.startsWith('runlock '));
  const now = new Map(offline.map((one) => [one.node, one]));
  for (const node of [...sinceMs.keys()]) if (!now.has(node)) sinceMs.delete(node);
  const gone = [...taken].filter((node) => !sinceMs.has(node));
  for (const node of gone) taken.delete(node);
  for (const [node, one] of now) {
    if (sinceMs.has(node)) continue;
    sinceMs.set(node, atMs);
    if (isRunlocks(one)) taken.add(node);
  }
  return taken.size - (before - gone.length);
}

const broken = (promise: Broken['promise'], what: string): Broken => ({ promise, what });
