// The proxy's way to the agent.
import { once } from 'node:events';
import { request as requestAgent } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

interface Outgoing {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly signal: AbortSignal | undefined;
}

/** The whole answer. Rejects when the agent gave none, or the signal came first. */
export async function send(url: string, { method, headers, signal }: Outgoing, body: Buffer): Promise<Reply> {
  // The body goes as it came, with its length or in chunks: Consul does not treat them alike.
  const chunked = headers['transfer-encoding'] === undefined ? {} : { 'transfer-encoding': 'chunked' };
  const outgoing = requestAgent(url, {
    method,
    headers: { ...endToEnd(headers), ...chunked },
    agent: false,
    ...(signal === undefined ? {} : { signal }),
  });
  outgoing.end(body);
  const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
  return { status: incoming.statusCode ?? 0, headers: incoming.headers, body: await collect(incoming) };
}

export async function collect(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Without the headers that belong to one connection alone. */
export function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const own = new Set(['connection', 'keep-alive', 'transfer-encoding']);
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !own.has(name)));
}
