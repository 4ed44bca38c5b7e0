/** The one place that says what an event is to people: its level, and its sentence. Pure. */
import { assertNever } from '../errors.ts';
import { clockTime, formatAge } from '../text/age.ts';
import { hint, leaveHint } from '../text/suggested-command.ts';
import { busySentence, holderText } from './busy.ts';
import { endSentence, givenBackText, overText } from './end.ts';
import type { RunEvent, Sentence } from './events.ts';

const error = (message: string): Sentence => ({ level: 'error', message });
const warning = (message: string): Sentence => ({ level: 'warning', message });
const info = (message: string): Sentence => ({ level: 'info', message });
const debug = (message: string): Sentence => ({ level: 'debug', message });

type Of<E extends RunEvent['event']> = Extract<RunEvent, { event: E }>;

export function sentenceOf(event: RunEvent): Sentence {
  switch (event.event) {
    case 'waiting':
      return info(waitingText(event));
    case 'frozen':
      return info(frozenText(event));
    case 'granted': {
      const got = `${event.node} got slot ${event.slot} of ${event.group} after ${formatAge(event.waitedMs)}`;
      return info(event.detail ? `${got} and holds it ${untilReleased(event, event.detail.prefix)}` : got);
    }
    case 'already-held': {
      const { prefix, forMs } = event.detail;
      return info(
        `${event.node} holds slot ${event.slot} of ${event.group} already (since ${formatAge(forMs)}) ${untilReleased(event, prefix)}`,
      );
    }
    case 'given-back': {
      const { prefix, given } = event.detail;
      return given?.kind === 'stays'
        ? warning(`${givenBackText(given, { ...event, prefix })}; nothing was started`)
        : info(`gave slot ${event.slot} of ${event.group} back; nothing was started`);
    }
    case 'recovered':
      return warning(`took the lock of ${event.group} back; the run goes on`);
    case 'lost':
      return lostSentence(event);
    case 'releasing': {
      const { command, slots } = event.detail;
      const all = slots.map(({ slot, group }) => `slot ${slot} of ${group}`).join(', ');
      return info(`${command} ended with ${event.exitCode}; waiting for Consul to take back ${all}`);
    }
    case 'ended':
      return endSentence(event);
    case 'busy':
      return busySentence(event);
    case 'when-waits':
      return info(`waiting without a slot of ${event.group}: ${event.missing.join('; ')}`);
    case 'when-gave-way':
      return info(
        `gave the slot of ${event.group} up at once, waiting without one again: ${event.missing.join('; ')}`,
      );
    case 'when-unmet':
      return warning(`busy: ${event.missing.join('; ')}`);
    case 'sent-away':
      // As an eviction before the start is: the operator's word is not chance, so it is no reason to try again soon.
      return error(
        `${event.by} sent ${event.node} away from the queue of ${event.group}; nothing was started`,
      );
    case 'dry-run':
      return warning(dryRunText(event));
    case 'metrics-unwritten':
      return warning(`--metrics-file ${event.file} could not be written: ${event.why}`);

    case 'gate-closed':
      return gateClosedSentence(event);
    case 'gate-open':
      return info(`the gate is open for ${event.node}`);
    case 'gate-nowhere':
      return info(`nobody offers the service ${event.service} yet, so nothing of it can go offline`);
    case 'gate-gave-way':
      return info(
        `${event.node} gives its slot back, for the gate is closed by now (${event.detail.closed})`,
      );
    case 'gate-left-queue':
      return info(
        `${event.node} leaves the queue, for the gate is closed by now (${event.detail.closed}); it joins again when it is open`,
      );
    case 'gate-unwatched':
      return debug(`the gate is not watched for a while: ${event.detail.fault}`);
    case 'out-unwatched':
      return debug(`nobody knows whether it is out of service: ${event.detail.fault}`);
    case 'maintenance-on':
      return info(maintenanceOnText(event));
    case 'waiting-for-health':
      return info(
        `the command is done; ${event.node} keeps its slot until its services are healthy, ${formatAge(event.withinMs)} at most (${event.why})`,
      );
    case 'maintenance-lost':
      return warning(`${event.service} on ${event.node} ${foundText(event)}`);
    case 'maintenance-off':
      return info(`${placeText(event)} is out of maintenance`);
    case 'maintenance-kept': {
      const { need, wentOut, isReadable } = event.detail;
      const message = `${event.run === undefined ? nameText(event) : placeText(event)} stays in maintenance: ${need}`;
      return wentOut || !isReadable ? warning(message) : info(message);
    }
    case 'maintenance-left':
      return warning(leftText(event));
    case 'maintenance-foreign':
      return event.run === undefined
        ? warning(`${nameText(event)} stays in maintenance (${event.reason}): somebody else set it`)
        : info(`${placeText(event)} stays in somebody else's maintenance ("${event.reason}")`);
    case undefined:
      return debug(`nobody knows whether ${event.detail.node} is in maintenance: ${event.detail.fault}`);

    case 'went-back':
      return warning(
        `the keys of ${event.group} were deleted or restored from a snapshot; runs under way get ${event.detail.pauseMs / 1_000}s to claim their slots again`,
      );
    case 'slot-unseen':
      return warning(`${event.detail.fault}; the run goes on`);
    case 'slot-seen':
      return warning(`the slot of ${event.detail.group} can be read again`);
    case 'lock-taken':
      return warning(
        `another session holds ${event.detail.key}, so ${event.node} can't take its lock of ${event.group} back; the run goes on, and runlock keeps trying`,
      );
    case 'left-behind':
      return warning(leftBehindText(event));
    case 'not-recorded':
      return warning(
        `how the run ended could not be recorded (${event.detail.fault}): history does not know of it`,
      );
    case 'session-left': {
      const { fault, session, isOthers } = event.detail;
      if (isOthers) return warning(`${fault}: its runlock hears of it later`);
      return debug(
        `${session === undefined ? 'the session' : `session ${session}`} was not destroyed: ${fault}`,
      );
    }
    case 'renewal-failed':
      return debug(`the session was not renewed: ${event.detail.fault}`);

    case 'consul-unreachable':
      return warning(`trying again: ${event.detail.fault}`);
    case 'consul-reachable':
      return warning(`Consul at ${event.address} answers again`);
    case 'consul-fault':
      return debug(event.detail.fault);

    case 'guard':
      return guardSentence(event);
    case 'no-cgroup':
      return debug(
        `no cgroup for the command: ${event.why}; its processes are known by their mark and parents`,
      );
    case 'run-file':
      return debug(
        event.detail.kind === 'not-noted'
          ? `the run is not noted on this host: ${event.detail.why}`
          : `${event.detail.path} is not believed: ${event.detail.why}`,
      );
    case 'unknown-variable':
      return event.meant === undefined
        ? debug(`${event.name} is set, but runlock has no such variable`)
        : warning(`unknown variable ${event.name} is ignored; did you mean ${event.meant}?`);
    case 'lines-lost':
      return warning(`${event.lines} lines of this log are missing: the reader of stderr did not keep up`);
    case 'stuck': {
      const who = event.detail.processes.map(({ pid, name }) => `${name} (pid ${pid})`).join(', ');
      return warning(`can't kill ${who}; the slot is kept until they are gone`);
    }
    case 'signal-lost':
      return warning(`${event.detail.signal} could not be passed on: ${event.detail.fault}`);
    case 'interrupt-passed-on': {
      const { command, againMs, killAfterMs } = event.detail;
      return warning(
        `passed Ctrl-C on to ${command}, which is still running; press it again within ${formatAge(againMs)} to end it (SIGTERM, then SIGKILL after ${formatAge(killAfterMs)})`,
      );
    }
    case 'paused':
      return warning(
        `stopped; nothing renews its lock meanwhile, so the command is killed unless it is continued within ${formatAge(event.detail.leftMs)}`,
      );
    case 'signals-not-ignored':
      return warning(
        `can't make ${event.detail.command} ignore ${event.signals} as runlock's caller does; install coreutils 8.31 or newer (env --ignore-signal)`,
      );
    case 'variables-changed':
      return warning(variablesText(event));
    case 'holder':
      return debug(`slot ${event.slot} of ${event.group}: ${event.detail.text}`);
    case 'no-live-line':
      return debug(`no live line: ${event.detail.fault}`);

    case 'evicted':
      return info(
        `evicted the run of ${event.detail.node} from slot ${event.slot}; waiting until it is gone`,
      );
    case 'sending-away':
      return info(
        `sent ${event.detail.node} away from the queue of ${event.detail.group}; waiting for its runlock`,
      );
    case 'freeze-unknown':
      return warning(`another freeze may stop it: ${event.detail.fault}`);
    case 'condition':
      return debug(`${event.condition} ${event.holds ? 'holds' : 'does not hold'}: ${event.detail.is}`);
    case 'wait-ended': {
      const { text } = event.detail;
      if (event.outcome === 'met') return info(text);
      return event.outcome === 'passed' ? warning(`${text}; going on (--on-timeout pass)`) : error(text);
    }
    case 'wait-in-run':
      return warning(
        `this wait keeps the slot of its run in ${event.group} taken; 'runlock exec --when' waits without one`,
      );
    case 'state-not-set':
      return warning(`${event.path} is not set`);
    case 'error': {
      const bug = event.code === 'bug' ? 'a bug in runlock, please report it: ' : '';
      return error(`${bug}${event.detail.fault}`.replaceAll(/\r?\n/g, ' '));
    }
    case 'asking':
    case 'queued':
    case 'moved-up':
    case 'near':
    case 'first':
      return { level: 'never', message: '' };
    default:
      return assertNever(event);
  }
}

/** That a run has to wait, and for whom, from what it saw when it joined the queue. */
function waitingText({ node, group, behind, held = [], detail }: Of<'waiting'>): string {
  const why = [...detail.holders.map(holderText), ...(behind ? ['others may be before it'] : [])].join(', ');
  const meanwhile = held.length === 0 ? '' : `, and keeps its slot of ${held.join(', ')} meanwhile`;
  return `${node} waits for a slot of ${group}${why === '' ? '' : ` (${why})`}${meanwhile}`;
}

function frozenText({ group, at, by, reason, until, detail }: Of<'frozen'>): string {
  // One of several groups: the run had got its slot there, and had not yet the last one.
  if (detail.then === 'gives-back')
    return `${group} was frozen by ${by} (${reason}) meanwhile; all slots are given back`;
  const what = at === group ? at : at === '' ? 'everything' : `${at}, and so ${group},`;
  return `${what} is frozen by ${by} (${reason}); waiting until ${until === undefined ? 'someone thaws it' : clockTime(until)}`;
}

function untilReleased({ group, heldUntil }: { group: string; heldUntil?: string }, prefix: string): string {
  return `until ${heldUntil === undefined ? '' : `${clockTime(heldUntil)} or `}'${hint(prefix, 'release', group)}'`;
}

function lostSentence(event: Of<'lost'>): Sentence {
  if (event.why === 'late')
    return error('the slot was granted too long ago: others may follow; nothing was started');
  const { slot, group } = event;
  const { over, then } = event.detail;
  switch (then) {
    case 'command-ends':
      // At once: to end the command may take a while, and what is said of its end comes after that.
      return info(`${overText(over, group)}; ending the command`);
    case 'nothing-started':
      return error(`${overText(over, group)}; nothing was started`);
    case 'not-held': {
      const why = over.kind === 'lost' ? over.why : overText(over, group);
      return error(`slot ${slot} of ${group} was lost before it was held: ${why}`);
    }
    default:
      return assertNever(then);
  }
}

function dryRunText({ node, slot, group, detail }: Of<'dry-run'>): string {
  const back = detail.before === undefined ? '' : `, taking back its ${detail.before} claim`;
  const line = detail.words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(' ');
  return `dry run: ${node} would run in slot ${slot} of ${group} at once${back}: ${line}`;
}

/** Where no peer is the reason, the reason itself. A warning where waiting does not help. */
function gateClosedSentence({ node, services, detail: { peers, closed } }: Of<'gate-closed'>): Sentence {
  const what = peers === '' ? closed : `${services.map(({ service }) => service).join(', ')}: ${peers}`;
  const message = `${node} waits for the gate of ${what}`;
  return services.some(({ because }) => because === 'too-many-here') ? warning(message) : info(message);
}

interface Where {
  readonly scope: 'node' | 'service';
  readonly service: string;
  readonly node: string;
}

const placeText = ({ scope, service, node }: Where) => (scope === 'node' ? node : `${service} on ${node}`);

const nameText = ({ scope, service, node }: Where) =>
  `${scope === 'node' ? 'the whole node' : service} of ${node}`;

function maintenanceOnText(event: Of<'maintenance-on'>): string {
  const isForeign = event.how === 'foreign';
  const whose = isForeign
    ? `somebody else's maintenance ("${event.detail.reason}"), which stays`
    : 'maintenance';
  return `${placeText(event)} is in ${whose}${event.how === 'adopted' ? ' since an earlier run' : ''}`;
}

function foundText(event: Of<'maintenance-lost'>): string {
  switch (event.how) {
    case 'again':
      return 'was registered anew while the command runs, and is in maintenance again';
    case 'closed':
      return `was registered anew while the command runs, and is in service: its gate is closed by now (${event.detail.closed})`;
    case 'by-hand':
      return 'is in service while the command runs: somebody has ended its maintenance';
    default:
      return assertNever(event);
  }
}

/** Maintenance that runlock set, and that is not over: why, and what ends it. */
function leftText({ node, detail }: Of<'maintenance-left'>): string {
  if (detail.kind === 'released') {
    const what = `${detail.places.join(', ')}: still in maintenance by runlock`;
    if (detail.need !== undefined) return `${what}: ${detail.need}`;
    return `${what} (${detail.why}); '${leaveHint(detail.prefix, [])}' on that node ends it`;
  }
  const { services } = detail;
  const leave = `'${leaveHint(detail.prefix, services)}' on ${node}`;
  switch (detail.kind) {
    case 'may-go-in':
      return `${node} may still go into maintenance (its agent did not answer when it was asked for it); ${leave} ends it`;
    case 'may-stay':
      return `${node} may stay in maintenance (${detail.why}); ${leave} ends it`;
    case 'stays':
      return `${node} stays in maintenance (${detail.why}); its next good run with --service ${services.join(',') || 'auto'} ends it, or ${leave}`;
    case 'by-earlier-run': {
      const what = [...services, ...(detail.isNode ? ['the whole node'] : [])].join(', ');
      const lacks =
        detail.lacks === 'agent' ? `go to ${node}'s own agent with --agent` : 'name that with --service';
      return `an earlier run left ${node} in maintenance (${what}), and this run does not ${lacks}: unless somebody has ended it, it stays, also after a good run; ${leave} ends it`;
    }
    default:
      return assertNever(detail);
  }
}

function leftBehindText({ detail }: Of<'left-behind'>): string {
  const { prefix, group, node, run, fault } = detail;
  const stays = {
    ticket: `the place in the queue of ${group} goes by itself when its session ends`,
    'what-is-there': `what stands there keeps others out of ${group}`,
    claim: `the claim of run ${run} may stay in ${group} and keep others out: ${node}'s next run clears it, or '${hint(prefix, 'release', group, '--owner', node)}', which asks first`,
  };
  return `could not leave ${group} cleanly (${fault}); ${stays[detail.stays]}`;
}

function guardSentence(event: Of<'guard'>): Sentence {
  switch (event.kind) {
    case 'fired':
      return warning('the guard heard nothing from runlock in time, and ended the command');
    case 'replaced':
      return debug('somebody ended the guard; another one has taken its place');
    case 'failed':
      return warning(`the guard can't work: ${event.detail.reason}`);
    default:
      return assertNever(event);
  }
}

function variablesText({ names }: Of<'variables-changed'>): string {
  const which = names.length === 1 ? `variable ${names[0] ?? ''} is` : `variables ${names.join(', ')} are`;
  return `the environment's ${which} not UTF-8, and will not reach the command as it is; set it in a script that runs the command`;
}
