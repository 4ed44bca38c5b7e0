// The rights of a token, for docs/rights.md and the man page; tests run with exactly these policies.

/** For a node `web01` that runs in `prod/web`. */
export const leastRights: readonly string[] = [
  'session "web01" { policy = "write" }',
  'key_prefix "runlock/prod/web/" { policy = "write" }',
  'key "runlock/prod/.freeze" { policy = "write" }',
  'key "runlock/.freeze" { policy = "write" }',
];

/** For the health gate of the service `web`; each with when it is needed, where that is not always. */
export const gateRights: readonly (readonly [rule: string, when: string])[] = [
  ['node_prefix "" { policy = "read" }', ''],
  ['service "web" { policy = "write" }', 'read is enough without maintenance'],
  ['key "runlock/.gate/web" { policy = "write" }', 'gate enter, exec --maintenance'],
  ['key_prefix "runlock/.gate/.out/web01/" { policy = "write" }', 'the same, gate leave, release on web01'],
  ['node "web01" { policy = "write" }', '--maintenance node'],
  ['service_prefix "" { policy = "read" }', '--maintenance node'],
  ['key_prefix "runlock/.gate/" { policy = "write" }', '--maintenance node'],
];

/** One rule a line, as Consul's policies have them. */
export function gatePolicy(): string[] {
  const width = Math.max(...gateRights.map(([rule]) => rule.length));
  return gateRights.map(([rule, when]) => (when === '' ? rule : `${rule.padEnd(width)}  # ${when}`));
}
