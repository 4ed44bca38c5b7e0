/**
 * Consul's own environment variables, with the same meaning as for the `consul` program
 * (https://developer.hashicorp.com/consul/commands#environment-variables), and the token. The token's file is read
 * again when needed, because the token may be rotated while runlock runs.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { RunlockError, withoutUser } from '../errors.ts';
import { readGiven, readPlain } from '../platform/read-given.ts';
import { systemAuthorities } from './authorities.ts';
import { toBoolean } from '../text/words.ts';

/** Where Consul is and how to speak to it. */
export interface ConsulSettings {
  /** For messages: as the user wrote it, but without user and password. */
  readonly address: string;
  /** `http://host:port/prefix/v1`, without a trailing slash. */
  readonly baseUrl: string;
  readonly socketPath?: string;
  readonly token?: string;
  /** The file that has the token, or may have it later. */
  readonly tokenFile?: string;
  /** `user:password`. */
  readonly auth?: string;
  readonly namespace?: string;
  readonly partition?: string;
  readonly tls: TlsSettings;
}

export interface TlsSettings {
  readonly verify: boolean;
  readonly ca?: readonly Buffer[];
  /** Used if no `ca` is given; undefined: the runtime's own authorities are used. */
  readonly systemCa?: readonly Buffer[];
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly serverName?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/**
 * Reads the CONSUL_* variables.
 * @param agent the address of another agent, from `--agent`; all other variables apply to that agent too.
 * @throws RunlockError `config`: a value is invalid, or a file can't be read.
 */
export function consulSettings(env: Env, agent?: string): ConsulSettings {
  const written = agent ?? value(env, 'CONSUL_HTTP_ADDR') ?? '127.0.0.1:8500';
  const address = withoutUser(written);
  const given = `${agent === undefined ? 'CONSUL_HTTP_ADDR=' : '--agent '}${address}`;
  const { user, ...place } = parseAddress(written, {
    given,
    ssl: readBoolean(env, 'CONSUL_HTTP_SSL') ?? false,
  });
  const token = readToken(env);
  const tokenFile = value(env, 'CONSUL_HTTP_TOKEN_FILE');
  const auth = value(env, 'CONSUL_HTTP_AUTH')?.replace(/^[^:]*$/, '$&:') ?? user;
  const namespace = value(env, 'CONSUL_NAMESPACE');
  const partition = value(env, 'CONSUL_PARTITION');
  return {
    address,
    ...place,
    ...(token !== undefined && { token }),
    ...(tokenFile !== undefined && { tokenFile }),
    ...(auth !== undefined && { auth }),
    ...(namespace !== undefined && { namespace }),
    ...(partition !== undefined && { partition }),
    tls: readTls(env, place.baseUrl.startsWith('https:')),
  };
}

function parseAddress(
  address: string,
  { given, ssl }: { given: string; ssl: boolean },
): Pick<ConsulSettings, 'baseUrl' | 'socketPath'> & { user?: string } {
  const [, scheme, rest = ''] = /^(?:([A-Za-z][A-Za-z0-9+.-]*):\/\/)?(.*)$/.exec(address) ?? [];
  if (scheme === 'unix' && rest !== '')
    return { baseUrl: `${ssl ? 'https' : 'http'}://localhost/v1`, socketPath: rest };
  if (scheme !== undefined && !['http', 'https', 'unix'].includes(scheme)) {
    throw configError(`${given}: unknown scheme '${scheme}'; use host:port, http://, https:// or unix://`);
  }
  // A port without a host means this host, as in Go programs.
  const place = rest.replace(/^([^/@]*@)?(?=:\d)/, '$1127.0.0.1');
  const text = `${ssl || scheme === 'https' ? 'https' : 'http'}://${place}`;
  if (scheme === 'unix' || rest === '' || !URL.canParse(text)) {
    throw configError(`${given}: not an address; use host:port, http://, https:// or unix://`);
  }
  const url = new URL(text);
  const { username, password } = url;
  return {
    baseUrl: `${url.origin}${url.pathname.replace(/\/+$/, '')}/v1`,
    ...((username !== '' || password !== '') && { user: `${decoded(username)}:${decoded(password)}` }),
  };
}

/** Decodes percent-encoding, and keeps percent signs that encode nothing. */
function decoded(text: string): string {
  return text.replaceAll(/(?:%[0-9A-Fa-f]{2})+/g, (bytes) =>
    Buffer.from(bytes.replaceAll('%', ''), 'hex').toString('utf8'),
  );
}

/** The most to read of a file, in bytes. */
export const TOKEN_LIMIT = 1_048_576;
const CERTIFICATES_LIMIT = 16_777_216;

/** Whether the text is one line of printable ASCII, as a header needs it. */
export const isToken = (text: string): boolean => !/[^\x20-\x7e]/.test(text);

/** @throws RunlockError `config`. */
export function readToken(env: Env): string | undefined {
  const file = value(env, 'CONSUL_HTTP_TOKEN_FILE');
  const fromFile =
    file === undefined ? '' : readFile('CONSUL_HTTP_TOKEN_FILE', file, TOKEN_LIMIT).toString('utf8').trim();
  const [token, name] =
    fromFile === ''
      ? [value(env, 'CONSUL_HTTP_TOKEN'), 'CONSUL_HTTP_TOKEN']
      : [fromFile, 'CONSUL_HTTP_TOKEN_FILE'];
  if (token !== undefined && !isToken(token)) {
    throw configError(`${name}: not a token; a token is one line of ASCII text`);
  }
  return token;
}

function readTls(env: Env, isUsed: boolean): TlsSettings {
  const ca = readAuthorities(env);
  const [cert] = readFiles(env, 'CONSUL_CLIENT_CERT');
  const [key] = readFiles(env, 'CONSUL_CLIENT_KEY');
  const serverName = value(env, 'CONSUL_TLS_SERVER_NAME');
  if (!cert !== !key) {
    throw configError('CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together; set both, or neither');
  }
  const given = (name: string) => `${name}=${value(env, name) ?? ''}`;
  if (cert) requirePem(given('CONSUL_CLIENT_CERT'), cert, CERTIFICATE);
  if (key) requirePem(given('CONSUL_CLIENT_KEY'), key, PRIVATE_KEY);
  const verify = readBoolean(env, 'CONSUL_HTTP_SSL_VERIFY') ?? true;
  const systemCa = isUsed && verify && ca.length === 0 ? systemAuthorities(env) : [];
  return {
    verify,
    ...(ca.length > 0 && { ca }),
    ...(systemCa.length > 0 && { systemCa }),
    ...(cert && key && { cert, key }),
    ...(serverName !== undefined && { serverName }),
  };
}

function readFiles(env: Env, name: string): Buffer[] {
  const path = value(env, name);
  return path === undefined ? [] : [readFile(name, path)];
}

/** Reads the authorities. Each file must have a certificate, as for the `consul` program. */
function readAuthorities(env: Env): Buffer[] {
  const [file, folder] = [value(env, 'CONSUL_CACERT'), value(env, 'CONSUL_CAPATH')];
  const inFolder = folder === undefined ? [] : readEntries('CONSUL_CAPATH', folder);
  const all = [
    ...(file === undefined ? [] : [['CONSUL_CACERT', file] as const]),
    ...inFolder.map((entry) => ['CONSUL_CAPATH', join(folder ?? '', entry)] as const),
  ];
  return all.map(([name, path]) => {
    const text = readFile(name, path);
    requirePem(`${name}=${path}`, text, CERTIFICATE);
    return text;
  });
}

const CERTIFICATE = { name: 'certificate', begins: /-----BEGIN CERTIFICATE-----/ };
const PRIVATE_KEY = { name: 'private key', begins: /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----/ };

/** Checks for PEM here, because Node.js silently ignores other data, and Bun does not say which file is wrong. */
function requirePem(given: string, text: Buffer, { name, begins }: typeof CERTIFICATE): void {
  if (!begins.test(text.toString('latin1')))
    throw configError(`${given}: no ${name} in PEM format in this file; correct the path or the file`);
}

function readEntries(name: string, folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  } catch (cause) {
    throw unreadableFile(name, folder, cause);
  }
}

function readFile(name: string, path: string, limit = CERTIFICATES_LIMIT): Buffer {
  try {
    return readGiven(path, limit);
  } catch (cause) {
    throw unreadableFile(name, path, cause);
  }
}

function unreadableFile(name: string, path: string, cause: unknown): RunlockError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unreadable';
  const why =
    { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'it is a folder' }[code] ??
    (code === 'EUNFIT' && cause instanceof Error ? cause.message : code);
  return configError(
    `${name}=${path}: can't be read (${why}); correct the path or the file's permissions`,
    cause,
  );
}

function readBoolean(env: Env, name: string): boolean | undefined {
  const word = value(env, name);
  if (word === undefined) return undefined;
  const read = toBoolean(word);
  if (read === undefined) throw configError(`${name}=${word}: must be true or false`);
  return read;
}

function value(env: Env, name: string): string | undefined {
  return env[name] === '' ? undefined : env[name];
}

function configError(message: string, cause?: unknown): RunlockError {
  return new RunlockError('config', message, { cause });
}

/** The token that requests are sent with. */
export interface Token {
  /** The token for a request that is sent now. */
  now(): string | undefined;
  /**
   * Reads the file again, for a moment at most. Keeps the old token if the file is unreadable or has no token,
   * because it may be being written, or is not a plain file (a pipe has been read already). Never rejects. Undefined:
   * there is no file.
   */
  reread(): Promise<void> | undefined;
  /** After Consul refused the token `sent`: whether there is a new token by now. */
  replaced(sent: string | undefined): Promise<boolean>;
}

/** How long to wait for the file. On a dead mount the read never ends, and requests go on with the old token. */
const READ_MS = 1_000;

export function createToken({ token: first, tokenFile }: Pick<ConsulSettings, 'token' | 'tokenFile'>): Token {
  let token = first;
  let reading: Promise<void> | undefined;
  const read = async (path: string) => {
    try {
      const found = (await readPlain(path, TOKEN_LIMIT)).toString('utf8').trim();
      if (found !== '' && isToken(found)) token = found;
    } catch {
      // Keep the old token, which may still be valid.
    }
    reading = undefined;
  };
  const reread = () => {
    if (tokenFile === undefined) return undefined;
    // Do not start another read while one hangs, because each would occupy a thread.
    reading ??= read(tokenFile);
    return withinLimit(reading);
  };
  return {
    now: () => token,
    reread,
    replaced: async (sent) => {
      if (token === sent) await reread();
      return token !== sent;
    },
  };
}

async function withinLimit(reading: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, READ_MS)));
  await Promise.race([reading, late]);
  clearTimeout(timer);
}
