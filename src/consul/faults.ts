/** Classifies what went wrong between runlock and Consul into a few known kinds of faults. Pure. */
import type { IncomingMessage } from 'node:http';
import { RunlockError, isRunlockError } from '../errors.ts';
import { shortageIn } from '../platform/shortage.ts';

type Response = IncomingMessage & { body?: unknown };

/** Whether the same call can succeed later without anyone changing anything. */
export function isTransient(error: unknown): error is RunlockError {
  return isRunlockError(error, 'unreachable', 'no-leader', 'overloaded');
}

/**
 * Whether clean-up code should retry after this fault, until its own deadline. A single answer, even a refusal, may
 * come from a proxy on the way, or be due to a token that is being replaced.
 */
export function isWorthAgain(error: unknown): error is RunlockError {
  return isTransient(error) || isRunlockError(error, 'not-consul', 'forbidden', 'config', 'session-lost');
}

/** The HTTP answer behind a fault, if it is complete: an answer that was cut off proves nothing. */
export function responseOf(error: unknown): Response | undefined {
  if (!(error instanceof Error) || !('response' in error)) return undefined;
  const response = error.response as Response | undefined;
  return response?.complete ? response : undefined;
}

/** The server that was asked, and the rights of the request. */
export interface Asked {
  readonly address: string;
  /** The rule that the request needs. */
  readonly rule?: string | undefined;
  /** Whether the request had no token. */
  readonly isAnonymous?: boolean;
}

/** Turns any error from the package or from Node.js into a fault of a known class. */
export function classify(error: unknown, where: Asked): RunlockError {
  const response = responseOf(error);
  return response ? classifyAnswer(response, error, where) : classifyTransport(error, where.address);
}

/**
 * Whether the answer is from Consul: another server's page must not pass for a missing key or a completed
 * transaction.
 */
export function isConsuls({ statusCode, headers, body }: Response): boolean {
  // Consul's 404 for a missing key has the index; that for a missing session is a line of text.
  if (statusCode === 404)
    return headers['x-consul-index'] !== undefined || /^session id /i.test(bodyText(body));
  // A body that is labelled as JSON but could not be parsed is still a Buffer.
  return !Buffer.isBuffer(body) && /^application\/json\b/.test(headers['content-type'] ?? '');
}

/** Whether the agent made a change: Consul then answers 200 with an empty body. */
export function isDone({ statusCode, headers }: Response): boolean {
  return statusCode === 200 && headers['content-length'] === '0';
}

/** Whether the agent has no such service: Consul answers 404, but 1.8.7 with ACLs answers 500. */
export function isUnknownService({ statusCode, body }: Response): boolean {
  return /^(?:no service registered|unknown service) /i.test(bodyText(body)) && statusCode !== 200;
}

export function notConsul(address: string, cause?: unknown): RunlockError {
  const message = `the server at ${address} is not Consul's HTTP API; correct CONSUL_HTTP_ADDR`;
  return new RunlockError('not-consul', message, { cause });
}

function classifyAnswer(response: Response, cause: unknown, asked: Asked): RunlockError {
  const { address } = asked;
  const status = response.statusCode ?? 0;
  const text = bodyText(response.body);
  const said = text === '' ? `HTTP ${status}` : `HTTP ${status}: ${text}`;
  if (status === 403 || isWithoutAcls(response) || UNKNOWN_TOKEN.test(text))
    return forbidden(asked, text, cause);
  if (status === 401 || status === 407) return wantsUser(address, said, cause);
  if (status === 429 || (status >= 500 && /rate limit exceeded/i.test(text))) {
    return new RunlockError('overloaded', `Consul at ${address} takes no more requests (${said})`, { cause });
  }
  if (status >= 500 && LEADERLESS.test(text)) {
    return new RunlockError('no-leader', `Consul at ${address} has no leader (${said})`, { cause });
  }
  // A 408 comes from a proxy on the way that did not receive the whole request in time.
  if (status === 408)
    return new RunlockError('unreachable', `Consul at ${address} failed (${said})`, { cause });
  const fix = fixFor(text);
  if (fix !== undefined || isRefusal(status, text))
    return new RunlockError('config', `Consul at ${address} refused the request: ${text}${fix ?? ''}`, {
      cause,
    });
  if (status >= 500)
    return new RunlockError('unreachable', `Consul at ${address} failed (${said})`, { cause });
  return notConsul(`${address} (${said})`, cause);
}

const LEADERLESS =
  /no cluster leader|leadership (?:lost|transfer in progress)|raft leader not found|node is not the leader|not ready to serve consistent reads/i;

/** Answers with status 400 or 500 that last until someone changes the configuration, and what to change. */
const REFUSALS: readonly (readonly [said: RegExp, fix: string])[] = [
  [/HTTP request to an HTTPS server/i, '; use https:// in CONSUL_HTTP_ADDR'],
  [
    /Consul Enterprise feature|Invalid query parameter: "(?:ns|partition)"|unknown field "(?:Namespace|Partition)"/i,
    '; unset CONSUL_NAMESPACE and CONSUL_PARTITION',
  ],
  [/Invalid Session TTL/i, "; raise --session-ttl, or lower session_ttl_min in the agents' configuration"],
  [/Invalid Behavior|invalid key/i, ''],
  // A filter that can't be read, or names what is not there: 500 in 1.8.7.
  [/boolean expression evaluator/i, ''],
  [/not a recognized HTTP API endpoint/i, '; is the path in CONSUL_HTTP_ADDR correct?'],
];

const fixFor = (text: string) => REFUSALS.find(([said]) => said.test(text))?.[1];

/** Whether Consul refused the request: its refusals are one line of plain text, while a page is from another server. */
function isRefusal(status: number, text: string): boolean {
  return status >= 400 && status < 500 && status !== 404 && text !== '' && !text.startsWith('<');
}

/** Whether Consul's ACLs are off. Any other 401 comes from a proxy. */
export function isWithoutAcls({ statusCode, body }: Response): boolean {
  return statusCode === 401 && /^ACL support disabled/i.test(bodyText(body));
}

function wantsUser(address: string, said: string, cause: unknown): RunlockError {
  const message = `a proxy in front of Consul at ${address} needs a user and password, or rejected those given (${said}); set CONSUL_HTTP_AUTH=user:password`;
  return new RunlockError('config', message, { cause });
}

/** The fault for Consul's 403. Names the rule that the token lacks. */
export function forbidden(asked: Asked, text: string, cause?: unknown): RunlockError {
  return new RunlockError('forbidden', refusal(asked, text), { cause });
}

const UNKNOWN_TOKEN = /ACL not found|supplied token does not exist/i;

/** Where to get help if the token is missing or lacks rights. */
const HELP = "('runlock doctor' tries every right, 'runlock policy' prints the rules)";

function refusal({ address, rule, isAnonymous }: Asked, text: string): string {
  if (UNKNOWN_TOKEN.test(text)) {
    return `Consul at ${address} does not know the token; check CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE`;
  }
  const refused = `Consul at ${address} refused (${text === '' ? 'permission denied' : text})`;
  const needs = rule === undefined ? '' : `; the token needs the rule: ${rule}`;
  // If ACLs are off, a token would not help, so do not suggest one.
  if (!isAnonymous || /^ACL support disabled/i.test(text)) return refused + needs;
  return `${refused}, and no token is set (CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN)${needs} ${HELP}`;
}

function bodyText(body: unknown): string {
  const text = Buffer.isBuffer(body) ? body.toString('utf8') : typeof body === 'string' ? body : '';
  const [line = ''] = text.split('\n');
  return line.trim().slice(0, 200);
}

const TOO_LARGE = 'EBODYTOOLARGE';

/** The error for a body that is too long to read. `limit`: in bytes. */
export function bodyTooLarge(limit: number): Error {
  return Object.assign(new Error(`more than ${limit / 1_048_576} MiB`), { code: TOO_LARGE });
}

function classifyTransport(error: unknown, address: string): RunlockError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const message = error instanceof Error ? error.message : String(error);
  if (code === TOO_LARGE) {
    const size = reason(code, message);
    const said = `the server at ${address} sent ${size} in one response, too much for runlock's keys; correct CONSUL_HTTP_ADDR or --prefix`;
    return new RunlockError('not-consul', said, { cause: error });
  }
  const isTls = /^(ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_O?SSL|HOSTNAME_MISMATCH|EPROTO)/.test(
    code,
  );
  // Bun gives only this message for an authority that it can't read.
  if (isTls || /\bInvalid CA$/.test(message)) {
    const fix =
      'check CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_TLS_SERVER_NAME and the scheme of CONSUL_HTTP_ADDR';
    return new RunlockError(
      'config',
      `TLS with Consul at ${address} failed (${reason(code, message)}); ${fix}`,
      {
        cause: error,
      },
    );
  }
  const fix = shortageIn(error) ?? 'is the agent running, and is CONSUL_HTTP_ADDR correct?';
  return new RunlockError(
    'unreachable',
    `Consul at ${address} unreachable (${reason(code, message)}); ${fix}`,
    {
      cause: error,
    },
  );
}

function reason(code: string, message: string): string {
  const known: Record<string, string> = {
    ECONNREFUSED: 'connection refused',
    ECONNRESET: 'the connection was closed',
    ENOTFOUND: 'no such host',
    EAI_AGAIN: 'the host name could not be looked up',
    ENOENT: 'no such socket',
    EACCES: 'permission denied',
    EHOSTUNREACH: 'no route to the host',
    ENETUNREACH: 'no route to the network',
    ETIMEDOUT: 'timed out',
  };
  // OpenSSL's messages, and those of Bun's BoringSSL, have fields: thread, number, library, function, reason, file.
  const [, openssl] = /error:[0-9A-Fa-f]+:[^:]*:[^:]*:([^:\n]+)/.exec(message) ?? [];
  const words = known[code] ?? openssl ?? message.replace(/^(?:consul: )?(?:[A-Za-z.]+: )*/, '');
  if (words === '') return code;
  // BoringSSL gives the reason as the name of a constant.
  return /^[A-Z0-9]+(?:_[A-Z0-9]+)+$/.test(words) ? words.replaceAll('_', ' ').toLowerCase() : words;
}
