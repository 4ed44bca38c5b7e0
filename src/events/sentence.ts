/** The level and the sentence of each event. Pure. */
import { assertNever } from '../errors.ts';
import { clockTime, formatAge } from '../text/age.ts';
import { frozenName } from '../text/frozen.ts';
import { hint, leaveHint } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import { busySentence, holderText, turnText } from './busy.ts';
import { endSentence, givenBackText, overText } from './end.ts';
import type { RunEvent, Sentence } from './events.ts';

const error = (message: string): Sentence => ({ level: 'error', message });
const warning = (message: string): Sentence => ({ level: 'warning', message });
const info = (message: string): Sentence => ({ level: 'info', message });

const HELD = {
  'back-off': (task: string) =>
    warning(`task ${task} failed, and a change still asks for it; the next try waits`),
  tripped: (task: string) =>
    warning(
      `task ${task} was started too often by changes; not starting it until 'runlock agent reset ${task}', or until it has been quiet for a while`,
    ),
  paused: (task: string) => info(`a change asks for task ${task}, but the agent is paused`),
};
const debug = (message: string): Sentence => ({ level: 'debug', message });

type Of<E extends RunEvent['event']> = Extract<RunEvent, { event: E }>;

export function sentenceOf(event: RunEvent): Sentence {
  switch (event.event) {
    case 'waiting':
      return info(waitingText(event));
    case 'frozen':
      return info(frozenText(event));
    case 'granted': {
      const got = `${event.node} acquired slot ${event.slot} of ${event.group} (waited ${formatAge(event.waitedMs)})`;
      return info(event.detail ? `${got}; ${untilReleased(event, event.detail.prefix)}` : got);
    }
    case 'already-held': {
      const { prefix, forMs } = event.detail;
      return info(
        `${event.node} already holds slot ${event.slot} of ${event.group} (acquired ${formatAge(forMs)} ago); ${untilReleased(event, prefix)}`,
      );
    }
    case 'given-back': {
      const { prefix, given } = event.detail;
      return given?.kind === 'stays'
        ? warning(`${givenBackText(given, { ...event, prefix })}; nothing was started`)
        : info(`released slot ${event.slot} of ${event.group}; nothing was started`);
    }
    case 'recovered':
      return warning(`reacquired the lock of ${event.group}; the run continues`);
    case 'lost':
      return lostSentence(event);
    case 'releasing': {
      const { command, slots } = event.detail;
      const all = slots.map(({ slot, group }) => `slot ${slot} of ${group}`).join(', ');
      return info(`${command} exited ${event.exitCode}; waiting for Consul to release ${all}`);
    }
    case 'ended':
      return endSentence(event);
    case 'busy':
      return busySentence(event);
    case 'turn-waits':
      return info(
        `${event.leftQueue ? `left the queue of ${event.group}, and queues again later` : `waiting without a slot of ${event.group}`}: ${turnText(event.node, event.detail)}`,
      );
    case 'output-lost':
      return warning(`the output of the command goes nowhere from now on: ${event.file}: ${event.why}`);
    case 'no-turn':
      return warning(
        `runs of ${event.node} on this host do not wait for each other, because a ticket for its turn can't be written: ${event.why}`,
      );
    case 'when-waits':
      return info(
        `waiting until --when is met, without taking a slot of ${event.group}: ${event.missing.join('; ')}`,
      );
    case 'when-gave-way':
      return info(
        `released the slot of ${event.group}, because --when is no longer met; waiting again without a slot: ${event.missing.join('; ')}`,
      );
    case 'when-unmet':
      return warning(`busy: --when is not met: ${event.missing.join('; ')}`);
    case 'when-apart':
      return info(
        '--when is met, but services kept changing while they were read: perhaps not all of it was met at one moment',
      );
    case 'wait-unrecorded':
      return debug(`'runlock status' does not show that this run waits: ${event.detail.fault}`);
    case 'sent-away':
      // An error, like an eviction before the start: an operator decided this, so a quick retry would be wrong.
      return error(`${event.by} removed ${event.node} from the queue of ${event.group}; nothing was started`);
    case 'left':
      return info(`nothing was started in ${event.group}: ${event.why}`);
    case 'dry-run':
      return warning(dryRunText(event));
    case 'metrics-unwritten':
      return warning(`could not write --metrics-file ${event.file}: ${event.why}`);

    case 'gate-closed':
      return gateClosedSentence(event);
    case 'gate-open':
      return info(`the gate is open for ${event.node}`);
    case 'gate-nowhere':
      return info(`service ${event.service} has no instances yet, so none can go offline`);
    case 'gate-gave-way':
      return info(`${event.node} is releasing its slot: the gate has closed (${event.detail.closed})`);
    case 'gate-left-queue':
      return info(
        `${event.node} is leaving the queue: the gate has closed (${event.detail.closed}); ${event.node} rejoins when the gate opens`,
      );
    case 'gate-unwatched':
      return debug(`can't watch the gate: ${event.detail.fault}; retrying`);
    case 'out-unwatched':
      return debug(`can't check that the node is still out of service: ${event.detail.fault}; retrying`);
    case 'maintenance-on':
      return info(maintenanceOnText(event));
    case 'waiting-for-health':
      return info(
        `command succeeded; keeping the slot and waiting up to ${formatAge(event.withinMs)} for the services of ${event.node} to become healthy (${event.why})`,
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
        ? warning(`${nameText(event)} stays in maintenance, not set by runlock ("${event.reason}")`)
        : info(`${placeText(event)} stays in maintenance, not set by runlock ("${event.reason}")`);
    case undefined:
      return debug(`can't tell whether ${event.detail.node} is in maintenance: ${event.detail.fault}`);

    case 'went-back':
      return warning(
        `the keys of ${event.group} were deleted or restored from a snapshot; waiting ${event.detail.pauseMs / 1_000}s for active runs to reclaim their slots`,
      );
    case 'slot-unseen':
      return warning(`${event.detail.fault}; the run continues`);
    case 'slot-seen':
      return warning(`reading the slot of ${event.detail.group} works again`);
    case 'lock-taken':
      return warning(
        `another session holds ${event.detail.key}, so ${event.node} can't reacquire its lock of ${event.group}; the run continues, and runlock keeps retrying`,
      );
    case 'left-behind':
      return warning(leftBehindText(event));
    case 'not-recorded':
      return warning(
        `could not record the end of the run (${event.detail.fault}); 'runlock history' does not show this run`,
      );
    case 'session-left': {
      const { fault, session, isOthers } = event.detail;
      if (isOthers) return warning(`${fault}; so the removed run may exit only when its turn comes`);
      return debug(
        `could not destroy ${session === undefined ? 'the session' : `session ${session}`}: ${fault}`,
      );
    }
    case 'renewal-failed':
      return debug(`could not renew the session: ${event.detail.fault}`);

    case 'consul-unreachable':
      return warning(`${event.detail.fault}${event.detail.fault.endsWith('?') ? ' Retrying' : '; retrying'}`);
    case 'consul-reachable':
      return warning(`Consul at ${event.address} is reachable again`);
    case 'consul-fault':
      return debug(event.detail.fault);

    case 'guard':
      return guardSentence(event);
    case 'no-cgroup':
      return debug(
        `no cgroup for the command: ${event.why}; tracking its processes by mark, session and parent`,
      );
    case 'run-file':
      return debug(
        event.detail.kind === 'not-noted'
          ? `can't record the run on this host: ${event.detail.why}`
          : `ignored ${event.detail.path}: ${event.detail.why}`,
      );
    case 'unknown-variable':
      return event.meant === undefined
        ? debug(`${event.name} is set, but runlock has no such variable`)
        : warning(`unknown variable ${event.name} is ignored; did you mean ${event.meant}?`);
    case 'lines-lost':
      return warning(`dropped ${event.lines} log lines: the reader of stderr was too slow`);
    case 'stuck': {
      const who = event.detail.processes.map(({ pid, name }) => `${name} (pid ${pid})`).join(', ');
      return warning(`can't kill ${who}; keeping the slot until they exit`);
    }
    case 'signal-lost':
      return warning(`could not forward ${event.detail.signal} to the command: ${event.detail.fault}`);
    case 'interrupt-passed-on': {
      const { command, againMs, killAfterMs } = event.detail;
      return warning(
        `forwarded Ctrl-C to ${command}, which is still running; press Ctrl-C again within ${formatAge(againMs)} to kill it (SIGTERM, then SIGKILL after ${formatAge(killAfterMs)})`,
      );
    }
    case 'paused':
      return warning(
        `stopped by Ctrl-Z; continue within ${formatAge(event.detail.leftMs)} (fg or bg), or the command is killed: a stopped run can't renew its lock`,
      );
    case 'signals-not-ignored':
      return warning(
        `runlock was started with ${event.signals} ignored, but can't start ${event.detail.command} the same way; install coreutils 8.31 or newer (env --ignore-signal)`,
      );
    case 'variables-changed':
      return warning(variablesText(event));
    case 'holder':
      return debug(`slot ${event.slot} of ${event.group}: ${event.detail.text}`);
    case 'no-live-line':
      return debug(`can't show progress: ${event.detail.fault}`);

    case 'agent-ready':
      return info(`the agent of ${event.node} is ready (${tasksText(event.tasks)})`);
    case 'agent-waits':
      return warning(`the agent is not registered in Consul: ${event.detail.fault}; retrying`);
    case 'agent-lost':
      return warning(
        `the agent of ${event.node} is no longer registered in Consul: ${event.detail.fault}; registering again`,
      );
    case 'agent-stops':
      return info(`the agent stops after ${event.signal}; active runs continue`);
    case 'agent-tasks':
      return event.faults.length === 0
        ? info(`read the task files (${tasksText(event.tasks)})`)
        : warning(`read the task files (${tasksText(event.tasks)}); skipped ${event.faults.join('; ')}`);
    case 'agent-paused':
      return info(
        `the agent is paused by ${event.by}${event.reason === undefined ? '' : `: ${event.reason}`}; it starts nothing`,
      );
    case 'agent-resumed':
      return info('the agent is resumed');
    case 'agent-no-requests':
      return warning(`the agent serves no requests: ${event.why}`);
    case 'trigger-starts':
      return info(
        event.on.length === 0
          ? `starting task ${event.task}: its last good run is too long ago`
          : `starting task ${event.task}: changed: ${event.on.map(visible).join(', ')}`,
      );
    case 'trigger-refused':
      return warning(
        `not starting task ${event.task}: ${event.why === 'loop' ? 'its own runs have led to the change' : 'too many triggered runs have led to the change'} (${event.cause.map(visible).join(', ')})`,
      );
    case 'trigger-held':
      return HELD[event.by](event.task);
    case 'reactor-failed':
      return warning(`${event.reactor}: ${event.detail.fault}; retrying`);
    case 'hook-taken':
      return info(`hook ${event.hook}: ${event.host} has accepted the change`);
    case 'hook-failed':
      return warning(`hook ${event.hook}: ${event.host}: ${event.detail.fault}; retrying`);
    case 'request':
      return requestSentence(event);
    case 'agent-run-ended':
      return runEndedSentence(event);
    case 'agent-part-failed':
      return warning(`${event.part}: ${event.detail.fault}; retrying in ${formatAge(event.detail.pauseMs)}`);
    case 'evicted':
      return info(`evicted the run of ${event.detail.node} from slot ${event.slot}; waiting for it to end`);
    case 'sending-away':
      return info(
        `removed ${event.detail.node} from the queue of ${event.detail.group}; waiting for its runlock to exit`,
      );
    case 'freeze-unknown':
      return warning(`another freeze may still be in effect: ${event.detail.fault}`);
    case 'condition':
      return debug(`${event.condition} ${event.holds ? 'holds' : 'does not hold'}: ${event.detail.is}`);
    case 'wait-ended': {
      const { text } = event.detail;
      if (event.outcome === 'met') return info(text);
      if (event.outcome === 'stopped') return warning(text);
      return event.outcome === 'passed' ? warning(`${text}; continuing (--on-timeout pass)`) : error(text);
    }
    case 'wait-in-run':
      return warning(
        `this wait is inside a run, which keeps its slot of ${event.group} meanwhile; to wait without a slot, ${event.task === undefined ? "give --when to the 'runlock exec' that started this run" : `write when = […] into the file of task ${event.task}`}`,
      );
    case 'job-known':
      return info(`job ${event.job} is there already, from the same start; following it`);
    case 'job-refused':
      return warning(`job ${event.job} could not be written yet: ${event.detail.fault}; retrying for 3s`);
    case 'job-left':
      return warning(
        `job ${event.job} goes on; to follow it: '${event.detail.watch}'; to stop it: '${event.detail.cancel}'`,
      );
    case 'job-unanswered': {
      const nodes = event.nodes.length === 0 ? 'its nodes' : event.nodes.join(', ');
      return error(
        `no answer from ${nodes} within ${formatAge(event.waitedMs)}; job ${event.job} stays, and starts when they answer before its end`,
      );
    }
    case 'job-waits-paused':
      return warning(
        `the agent of ${event.node} is paused; it takes the job when somebody runs 'runlock agent resume' there`,
      );
    case 'job-offline':
      return warning(
        `${namesText(event.nodes)}: no runlock agent is running there; ${OFFLINE[event.offline]}`,
      );
    case 'job-end-unrecorded':
      return warning(`the end of this run is not recorded in job ${event.job}: ${event.detail.fault}`);
    case 'state-not-set':
      return warning(`${event.path} is not set`);
    case 'state-unreadable':
      return warning(event.detail.fault);
    case 'error': {
      const bug = event.code === 'bug' ? 'bug in runlock, please report: ' : '';
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

/** A run waits. The holders are those at the moment when it joined the queue. */
function waitingText({ node, group, behind, held = [], detail }: Of<'waiting'>): string {
  const why = [...detail.holders.map(holderText), ...(behind ? ['others may be ahead'] : [])].join(', ');
  const meanwhile = held.length === 0 ? '' : `, holding its slot of ${held.join(', ')} meanwhile`;
  return `${node} is waiting for a slot of ${group}${why === '' ? '' : ` (${why})`}${meanwhile}`;
}

function frozenText({ group, at, by, reason, until, detail }: Of<'frozen'>): string {
  // A run in several groups: it had a slot of this one, and was still waiting for another.
  if (detail.then === 'gives-back')
    return `${group} was frozen by ${by} (${reason}) during the wait; releasing all slots`;
  return `${frozenName(at, group)} is frozen by ${by} (${reason}); waiting until ${until === undefined ? 'thawed' : clockTime(until)}`;
}

function untilReleased({ group, heldUntil }: { group: string; heldUntil?: string }, prefix: string): string {
  const until = heldUntil === undefined ? '' : `held until ${clockTime(heldUntil)}; `;
  return `${until}to release: '${hint(prefix, 'release', group)}'`;
}

function lostSentence(event: Of<'lost'>): Sentence {
  if (event.why === 'late')
    return error(
      'too much time passed after acquiring the slot, so another run may have the slot now; nothing was started',
    );
  const { slot, group } = event;
  const { over, then } = event.detail;
  switch (then) {
    case 'command-ends':
      // Logged at once: killing the command may take a while, and `ended` comes after that.
      return info(`${overText(over, group)}; killing the command`);
    case 'nothing-started':
      return error(`${overText(over, group)}; nothing was started`);
    case 'not-held': {
      const why = over.kind === 'lost' ? over.why : overText(over, group);
      return error(`lost slot ${slot} of ${group} while acquiring it: ${why}`);
    }
    default:
      return assertNever(then);
  }
}

function dryRunText({ node, slot, group, detail }: Of<'dry-run'>): string {
  const back = detail.before === undefined ? '' : `, replacing its ${detail.before} claim`;
  const line = detail.words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(' ');
  return `dry run: ${node} would start now in slot ${slot} of ${group}${back}: ${line}`;
}

/** Names the peers that the run waits for, or the reason if there are none. A warning if waiting can't help. */
function gateClosedSentence({ node, services, detail: { peers, closed } }: Of<'gate-closed'>): Sentence {
  const what = peers === '' ? closed : `${services.map(({ service }) => service).join(', ')}: ${peers}`;
  const message = `${node} is waiting for the gate of ${what}`;
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
  const how = {
    set: '',
    adopted: ', left by an earlier run',
    foreign: `, not set by runlock ("${event.detail.reason}"); leaving it in place`,
  };
  return `${placeText(event)} is in maintenance${how[event.how]}`;
}

function foundText(event: Of<'maintenance-lost'>): string {
  switch (event.how) {
    case 'again':
      return 'was re-registered during the run; put it back into maintenance';
    case 'closed':
      return `was re-registered during the run and stays in service: its gate has closed (${event.detail.closed})`;
    case 'by-hand':
      return 'is back in service during the run: someone ended its maintenance';
    default:
      return assertNever(event);
  }
}

/** Maintenance that runlock set and did not end: why, and how to end it. */
function leftText({ node, detail }: Of<'maintenance-left'>): string {
  if (detail.kind === 'released') {
    const what = `${detail.places.join(', ')}: still in maintenance set by runlock`;
    if (detail.need !== undefined) return `${what}: ${detail.need}`;
    return `${what} (${detail.why}); to end it: '${leaveHint(detail.prefix, [])}' on that node`;
  }
  const { services } = detail;
  const leave = `to end it: '${leaveHint(detail.prefix, services)}' on ${node}`;
  switch (detail.kind) {
    case 'may-go-in':
      return `${node} may still go into maintenance (its agent did not answer the request); ${leave}`;
    case 'may-stay':
      return `${node} may stay in maintenance (${detail.why}); ${leave}`;
    case 'stays':
      return `${node} stays in maintenance (${detail.why}) until a run with --service ${services.join(',') || 'auto'} succeeds; ${leave}`;
    case 'by-earlier-run': {
      const what = [...services, ...(detail.isNode ? ['the whole node'] : [])].join(', ');
      const lacks =
        detail.lacks === 'agent'
          ? `does not use ${node}'s own agent (--agent)`
          : 'does not name the same services (--service)';
      return `an earlier run left ${node} in maintenance (${what}), and this run does not end the maintenance, because the run ${lacks}; ${leave}`;
    }
    default:
      return assertNever(detail);
  }
}

function leftBehindText({ detail }: Of<'left-behind'>): string {
  const { prefix, group, node, run, fault } = detail;
  const stays = {
    ticket: `its place in the queue of ${group} expires with its session`,
    'what-is-there': `this blocks ${group}`,
    claim: `the claim of run ${run} may stay and block ${group}; the next run of ${node} clears the claim; to clear by hand: '${hint(prefix, 'release', group, '--owner', node)}' (asks for confirmation)`,
  };
  return `could not clean up in ${group} (${fault}); ${stays[detail.stays]}`;
}

function guardSentence(event: Of<'guard'>): Sentence {
  switch (event.kind) {
    case 'fired':
      return warning('runlock did not respond in time, so its guard process killed the command');
    case 'replaced':
      return debug('the guard was killed; started another one');
    case 'failed':
      return warning(`the guard does not work: ${event.detail.reason}`);
    default:
      return assertNever(event);
  }
}

function variablesText({ names }: Of<'variables-changed'>): string {
  const which = names.length === 1 ? `variable ${names[0] ?? ''} is` : `variables ${names.join(', ')} are`;
  return `environment ${which} not UTF-8, so the command gets a changed value; to keep the value, set it in a script that runs the command`;
}

const OFFLINE = {
  wait: 'the job waits for them until its end',
  skip: 'the job leaves them out',
  fail: 'they count as failures',
} as const;

/** Nodes that one line names. */
const MOST_NAMED = 5;

const namesText = (nodes: readonly string[]): string =>
  nodes.length <= MOST_NAMED
    ? nodes.join(', ')
    : `${nodes.slice(0, MOST_NAMED).join(', ')} and ${nodes.length - MOST_NAMED} more`;

const tasksText = (tasks: readonly string[]) =>
  tasks.length === 0 ? 'no tasks' : `${tasks.length === 1 ? 'task' : 'tasks'} ${tasks.join(', ')}`;

function runEndedSentence({ job, task, code, signal, said, ranMs, log }: Of<'agent-run-ended'>): Sentence {
  const what = job === undefined ? `the run of task ${task}` : `job ${job}: the run of task ${task}`;
  const how = code === undefined ? `was killed by ${signal ?? 'something'}` : `exited ${code}`;
  const text = `${what} ${how} after ${formatAge(ranMs)}`;
  return code === 0 ? info(text) : warning(`${text}${said === '' ? '' : `: ${visible(said)}`}; see ${log}`);
}

function requestSentence(event: Of<'request'>): Sentence {
  const { job, step, task, state, exitCode, ranMs, why } = event;
  const because = why === undefined ? '' : `: ${why}`;
  switch (step) {
    case 'accepted':
      return info(`job ${job}: accepted`);
    case 'started':
      return info(`job ${job}: started a run of task ${task ?? ''}`);
    case 'ended':
      return (state === 'good' ? info : warning)(
        `job ${job}: ${state ?? 'ended'} on this node${exitCode === undefined ? '' : ` (exit code ${exitCode})`}${ranMs === undefined ? '' : ` after ${formatAge(ranMs)}`}${because}`,
      );
    case 'unreadable':
      return warning(`job ${job}: can't be served${because}`);
    case 'dropped':
      return warning(`job ${job}: removed from this node's inbox${because}`);
    default:
      return assertNever(step);
  }
}
