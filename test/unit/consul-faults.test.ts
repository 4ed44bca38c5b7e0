import { describe, expect, test } from 'vitest';
import { classify, isConsuls, isTransient, notConsul, responseOf } from '../../src/consul/faults.ts';
import { RunlockError } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';

type Response = Parameters<typeof isConsuls>[0];

const where = { address: 'consul:8500', rule: 'key_prefix "a/" { policy = "write" }' };

const response = (statusCode: number, body?: unknown, headers: object = {}) =>
  ({ complete: true, statusCode, headers, body }) as unknown as Response;

const answered = (statusCode: number, body?: unknown) =>
  Object.assign(new Error('response error'), { response: response(statusCode, body) });

const thrown = (code: string, message: string) => Object.assign(new Error(message), { code });

describe('an answer of Consul', () => {
  test.each<[number, string, ErrorCode, RegExp]>([
    [500, 'No cluster leader', 'no-leader', /has no leader \(HTTP 500: No cluster leader\)/],
    [500, 'rpc error making call: leadership lost while committing log', 'no-leader', /has no leader/],
    [500, 'internal error', 'unreachable', /failed \(HTTP 500: internal error\)/],
    [502, '', 'unreachable', /failed \(HTTP 502\)/],
    [503, 'No cluster leader', 'no-leader', /has no leader/],
    [503, 'maintenance', 'unreachable', /failed/],
    [429, 'rate limit exceeded', 'overloaded', /takes no more requests \(HTTP 429: rate limit exceeded\)/],
    [
      403,
      'Permission denied',
      'forbidden',
      /refused \(Permission denied\); the token needs the rule: key_prefix/,
    ],
    [403, '', 'forbidden', /refused \(permission denied\)/],
    [401, 'ACL support disabled', 'forbidden', /refused \(ACL support disabled\)/],
    [
      401,
      'Unauthorized',
      'config',
      /a proxy in front of Consul .* \(HTTP 401: Unauthorized\); set CONSUL_HTTP_AUTH=/,
    ],
    [401, '', 'config', /needs a user and password, or rejected those given \(HTTP 401\); set/],
    [407, '', 'config', /needs a user and password/],
    [403, 'ACL not found', 'forbidden', /does not know the token; check CONSUL_HTTP_TOKEN or/],
    [404, '404 page not found', 'not-consul', /is not Consul's HTTP API; correct CONSUL_HTTP_ADDR/],
    [
      400,
      'Client sent an HTTP request to an HTTPS server.',
      'config',
      /refused the request: Client sent .*https:\/\//,
    ],
    [
      400,
      'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
      'config',
      /refused the request: Invalid query parameter.*; unset CONSUL_NAMESPACE and CONSUL_PARTITION$/,
    ],
    [
      400,
      'Failed to parse body: json: unknown field "Partition"',
      'config',
      /unknown field "Partition"; unset CONSUL_NAMESPACE and CONSUL_PARTITION$/,
    ],
    [
      413,
      'Transaction contains too many operations (65 > 64)',
      'config',
      /refused the request: Transaction contains/,
    ],
    [405, 'method POST not allowed', 'config', /refused the request: method POST not allowed$/],
    [400, '<html>Bad request', 'not-consul', /HTTP 400: <html>/],
    [400, '', 'not-consul', /HTTP 400/],
    [
      500,
      "rpc error making call: Invalid Session TTL '10000000000', must be between [15s=24h0m0s]",
      'config',
      /refused the request: .*Invalid Session TTL.*; raise --session-ttl, or lower session_ttl_min/,
    ],
    [500, 'invalid key name, must not contain spaces', 'config', /refused the request: invalid key name/],
    [500, 'leadership transfer in progress', 'no-leader', /has no leader/],
    [500, 'Raft leader not found in server lookup mapping', 'no-leader', /has no leader/],
    [500, 'Not ready to serve consistent reads', 'no-leader', /has no leader/],
    [
      503,
      'rate limit exceeded for operation that can only be performed by the leader',
      'overloaded',
      /no more requests/,
    ],
    [500, 'rate limit exceeded, try again later', 'overloaded', /takes no more requests/],
    [429, 'Your IP is issuing too many concurrent connections', 'overloaded', /takes no more requests/],
    [404, 'Supplied token does not exist', 'forbidden', /does not know the token/],
    [
      404,
      'Invalid URL path: not a recognized HTTP API endpoint',
      'config',
      /refused the request: Invalid URL path/,
    ],
    [301, '', 'not-consul', /HTTP 301/],
    [200, 'not JSON', 'not-consul', /HTTP 200/],
  ])('%d %s is %s', (status, body, code, message) => {
    const error = answered(status, Buffer.from(body));
    const fault = classify(error, where);
    expect(fault).toMatchObject({ code, cause: error, message: expect.stringMatching(message) as string });
    expect(fault.message).toContain('consul:8500');
    expect(fault.message).not.toContain('\n');
  });

  test('is quoted by its first line alone, and not without an end', () => {
    const { message } = classify(answered(500, `<html>\n${'x'.repeat(5_000)}`), where);
    expect(message).toContain('HTTP 500: <html>)');
    expect(classify(answered(500, 'y'.repeat(5_000)), where).message.length).toBeLessThan(300);
  });

  test('without a rule to name asks for none', () => {
    const fault = classify(answered(403, 'Permission denied'), { address: 'consul:8500' });
    expect(fault.message).toBe('Consul at consul:8500 refused (Permission denied)');
  });

  test('a refusal without a token says that there is none, and where to look', () => {
    const asked = { ...where, isAnonymous: true };
    expect(classify(answered(403, 'Permission denied'), asked).message).toMatch(
      /refused \(Permission denied\), and no token is set \(CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN\); the token needs the rule: .* \('runlock doctor' tries every right, 'runlock policy' prints the rules\)$/,
    );
    for (const [status, text] of [
      [401, 'ACL support disabled'],
      [403, 'ACL not found'],
    ] as const)
      expect(classify(answered(status, text), asked).message).not.toContain('no token is set');
  });
});

describe('what the network or TLS says', () => {
  test.each<[string, string, ErrorCode, string]>([
    ['ECONNREFUSED', 'connect ECONNREFUSED 127.0.0.1:1', 'unreachable', 'connection refused'],
    ['ECONNRESET', 'socket hang up', 'unreachable', 'the connection was closed'],
    ['ENOTFOUND', 'getaddrinfo ENOTFOUND x', 'unreachable', 'no such host'],
    ['EAI_AGAIN', 'getaddrinfo EAI_AGAIN x', 'unreachable', 'the host name could not be looked up'],
    ['ENOENT', 'connect ENOENT /x', 'unreachable', 'no such socket'],
    ['EACCES', 'connect EACCES /x', 'unreachable', 'permission denied'],
    ['EHOSTUNREACH', 'connect', 'unreachable', 'no route to the host'],
    ['ENETUNREACH', 'connect', 'unreachable', 'no route to the network'],
    ['ETIMEDOUT', 'connect', 'unreachable', 'timed out'],
    ['', 'consul: kv.get: request timed out (5ms)', 'unreachable', 'request timed out (5ms)'],
    ['EWEIRD', '', 'unreachable', 'EWEIRD'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'consul: kv.get: unable to verify', 'config', 'unable to verify'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'self-signed', 'config', 'self-signed'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'self-signed', 'config', 'self-signed'],
    ['CERT_HAS_EXPIRED', 'certificate has expired', 'config', 'certificate has expired'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'Host: x is not', 'config', 'x is not'],
    [
      'EPROTO',
      'write EPROTO 80:error:0A00010B:SSL routines:get:wrong version number:../x.c:350:\n',
      'config',
      'wrong version number',
    ],
    [
      'ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE',
      '80:error:0A000412:SSL routines:read:sslv3 alert bad certificate:../x.c:16:SSL alert number 42\n',
      'config',
      'sslv3 alert bad certificate',
    ],
    [
      'ERR_OSSL_X509_KEY_VALUES_MISMATCH',
      'error:05800074:x509 certificate routines::key values mismatch',
      'config',
      'key values mismatch',
    ],
    [
      'ERR_SSL_WRONG_VERSION_NUMBER',
      'error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER',
      'config',
      'wrong version number',
    ],
    ['ERR_SSL_BAD_BASE64_DECODE', 'consul: kv.get: BAD_BASE64_DECODE', 'config', 'bad base64 decode'],
    ['', 'consul: kv.get: Invalid CA', 'config', 'Invalid CA'],
  ])('is told in few words: %s', (code, message, expected, words) => {
    const error = thrown(code, message);
    const fault = classify(error, where);
    expect(fault).toMatchObject({ code: expected, cause: error });
    expect(fault.message).toContain(`(${words})`);
    expect(fault.message).toContain('consul:8500');
    expect(fault.message).not.toContain('\n');
  });

  test('even when an answer had begun', () => {
    const cut = Object.assign(answered(403), { response: { statusCode: 403, complete: false } });
    expect(classify(cut, where)).toMatchObject({ code: 'unreachable' });
  });

  test('even when it is no error at all', () => {
    expect(classify('odd', where)).toMatchObject({ code: 'unreachable', cause: 'odd' });
  });
});

test.each<[ErrorCode, boolean]>([
  ['unreachable', true],
  ['no-leader', true],
  ['overloaded', true],
  ['not-consul', false],
  ['forbidden', false],
  ['config', false],
  ['session-lost', false],
  ['bug', false],
])('whether %s can pass by itself: %s', (code, transient) => {
  expect(isTransient(new RunlockError(code, 'x'))).toBe(transient);
});

test('what is no fault of ours never counts as passing by itself', () => {
  expect(isTransient(thrown('ECONNREFUSED', 'x'))).toBe(false);
  expect(isTransient(undefined)).toBe(false);
});

test('the answer behind a fault is found where there is one', () => {
  const error = answered(404);
  expect(responseOf(error)).toBe(error.response);
  expect(responseOf(Object.assign(new Error('x'), { response: { statusCode: 409 } }))).toBeUndefined();
  expect(responseOf(new Error('x'))).toBeUndefined();
  expect(responseOf('x')).toBeUndefined();
});

describe('what speaks like Consul', () => {
  const json = { 'content-type': 'application/json' };

  test.each<[string, Response]>([
    ['JSON', response(200, [], json)],
    ['JSON with a character set', response(200, [], { 'content-type': 'application/json; charset=utf-8' })],
    ['a refused transaction', response(409, {}, json)],
    ['a missing key', response(404, undefined, { 'x-consul-index': '12' })],
    ['a missing session', response(404, Buffer.from("Session id 'x' not found"))],
  ])('is %s', (_, answer) => {
    expect(isConsuls(answer)).toBe(true);
  });

  test.each<[string, Response]>([
    ['a page', response(200, '<html>', { 'content-type': 'text/html' })],
    ['nothing', response(200)],
    ['a missing page', response(404, '<html>not found', { 'content-type': 'text/html' })],
    ['an empty 404', response(404)],
    ['what calls itself JSON and is none', response(200, Buffer.from('no'), json)],
    ['a 404 in JSON', response(404, {}, json)],
  ])('is not %s', (_, answer) => {
    expect(isConsuls(answer)).toBe(false);
  });

  test('or else the address is wrong', () => {
    expect(notConsul('consul:8500')).toMatchObject({
      code: 'not-consul',
      message: "the server at consul:8500 is not Consul's HTTP API; correct CONSUL_HTTP_ADDR",
    });
  });
});
