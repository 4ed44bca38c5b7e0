/** Sends one request of a hook. Says what became of it, and nothing that could hold a secret. */
import type { IncomingMessage, RequestOptions } from 'node:http';
import { reasonOf } from '../../errors.ts';
import { visible } from '../../text/visible.ts';
import type { Hook } from './definition.ts';

export type Posted = { readonly kind: 'taken' } | { readonly kind: 'refused'; readonly why: string };

export interface Posting {
  readonly body: string;
  /** Undefined: unsigned. */
  readonly signature?: string | undefined;
  /** Authorities of the host; none: those of the runtime. */
  readonly authorities: readonly Buffer[];
  readonly version: string;
  readonly signal: AbortSignal;
}

/** Never throws, unless `signal` aborts. */
export async function post({ post: url, timeoutMs }: Hook, posting: Posting): Promise<Posted> {
  const { body, signature, authorities, version, signal } = posting;
  const { request } = url.protocol === 'https:' ? await import('node:https') : await import('node:http');
  const late = AbortSignal.timeout(timeoutMs);
  const options: RequestOptions & { ca?: Buffer[]; rejectUnauthorized: boolean } = {
    method: 'POST',
    signal: AbortSignal.any([signal, late]),
    agent: false,
    // Said aloud, because a variable of the environment could turn it off.
    rejectUnauthorized: true,
    ...(authorities.length > 0 && { ca: [...authorities] }),
    headers: {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'user-agent': `runlock/${version}`,
      connection: 'close',
      ...(signature !== undefined && { 'x-runlock-signature': signature }),
    },
  };
  try {
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      request(url, options).once('response', resolve).on('error', reject).end(body);
    });
    // The status is the answer; whatever follows is not read.
    answer.on('error', () => undefined).destroy();
    return judge(answer.statusCode ?? 0);
  } catch (error) {
    signal.throwIfAborted();
    const why = late.aborted ? `no answer within ${timeoutMs / 1_000}s` : faultText(error);
    return { kind: 'refused', why };
  }
}

function judge(status: number): Posted {
  if (status >= 200 && status < 300) return { kind: 'taken' };
  const more = status >= 300 && status < 400 ? ', and redirects are not followed' : '';
  return { kind: 'refused', why: `it answered ${status}${more}` };
}

/** Of several addresses that were tried, only the faults themselves say something. */
function faultText(error: unknown): string {
  const first = error instanceof AggregateError ? (error.errors[0] as unknown) : error;
  return visible(reasonOf(first)).slice(0, 200);
}
