/**
 * Everybody watches the lock's key, as `consul lock` does (api/lock.go of Consul 1.8): a session, a blocking query on
 * the key until nobody has it, an attempt, and again. A client of its own that sends the same requests, so that a
 * thousand fit into one process and are counted the same way. In favour of the herd it leaves out the question for the
 * node's name at the start, renews nothing, and waits a minute instead of 15 s before it asks again without a cause.
 */
import { setMaxListeners } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Agent } from '../../test/support/consul.ts';
import type { Crowd } from './in-process-crowd.ts';

interface Pair {
  readonly Session?: string;
  readonly ModifyIndex: number;
}

interface Reply {
  readonly index: number;
  readonly body: unknown;
}

type Ask = (method: 'GET' | 'PUT' | 'DELETE', path: string, body?: string) => Promise<Reply>;

const KEY = '/v1/kv/herd/.lock';
/** DefaultLockRetryTime: after an attempt that failed although nobody has the lock. */
const RETRY_MS = 5_000;

export function herdCrowd(agent: Agent): Crowd {
  const connections = new http.Agent({ keepAlive: true });
  const dismissed = new AbortController();
  // Every request under way listens.
  setMaxListeners(Infinity, dismissed.signal);
  const ask = asker(agent, connections, dismissed.signal);
  return {
    enter: async (node, onJoined) => {
      const session = { Name: `herd ${node}`, TTL: '600s', LockDelay: '0s', Checks: [] };
      const { body } = await ask('PUT', '/v1/session/create', JSON.stringify(session));
      const { ID } = body as { ID: string };
      await take(ask, ID, { signal: dismissed.signal, onJoined });
      const monitoring = monitor(ask, ID).catch(() => undefined);
      return () => release(ask, ID, monitoring);
    },
    dismiss: () => dismissed.abort(new Error('dismissed')),
    close: () => connections.destroy(),
  };
}

function asker({ address }: Agent, agent: http.Agent, signal: AbortSignal): Ask {
  const [host, port] = address.split(':');
  return (method, path, body = '') =>
    new Promise((resolve, reject) => {
      const headers = { 'content-length': Buffer.byteLength(body) };
      const request = http.request({ host, port, agent, method, path, headers, signal });
      request.on('error', reject);
      request.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('error', reject);
        response.on('end', () => {
          const { statusCode = 0 } = response;
          if (statusCode !== 200 && statusCode !== 404) reject(new Error(`${path}: ${statusCode} ${text}`));
          const index = Number(response.headers['x-consul-index'] ?? 0);
          resolve({ index, body: statusCode === 200 ? (JSON.parse(text) as unknown) : undefined });
        });
      });
      request.end(body);
    });
}

async function read(ask: Ask, query: string): Promise<{ pair: Pair | undefined; index: number }> {
  const { body, index } = await ask('GET', `${KEY}?${query}`);
  return { pair: (body as Pair[] | undefined)?.[0], index };
}

const watch = (index: number) => (index > 0 ? `wait=60000ms&index=${index}` : 'wait=60000ms');

/** Lock.Lock */
async function take(
  ask: Ask,
  session: string,
  { signal, onJoined }: { signal: AbortSignal; onJoined: (() => void) | undefined },
): Promise<void> {
  for (let index = 0; ;) {
    const seen = await read(ask, watch(index));
    if (seen.pair?.Session !== undefined) {
      if (index === 0) onJoined?.();
      index = seen.index;
      continue;
    }
    const { body: taken } = await ask('PUT', `${KEY}?acquire=${session}`);
    if (taken === true) return;
    const now = await read(ask, watch(0));
    if (now.pair?.Session === undefined) await sleep(RETRY_MS, undefined, { signal });
    index = now.pair?.Session === undefined ? 0 : now.index;
  }
}

/** Lock.monitorLock */
async function monitor(ask: Ask, session: string): Promise<void> {
  for (let index = 0; ;) {
    const seen = await read(ask, `consistent&${index > 0 ? `index=${index}` : ''}`);
    if (seen.pair?.Session !== session) return;
    index = seen.index;
  }
}

/** Lock.Unlock, and Lock.Destroy, which deletes the key if nobody has taken it meanwhile. */
async function release(ask: Ask, session: string, monitoring: Promise<void>): Promise<void> {
  await ask('PUT', `${KEY}?release=${session}`);
  const { pair } = await read(ask, '');
  if (pair && pair.Session === undefined) await ask('DELETE', `${KEY}?cas=${pair.ModifyIndex}`);
  await ask('PUT', `/v1/session/destroy/${session}`);
  await monitoring;
}
