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

/** For states and conditions: what is done, or waited for, and the rules that it needs. */
export const stateRights: readonly (readonly [what: readonly string[], rules: readonly string[]])[] = [
  [
    [
      'exec --publish db/schema=42',
      'exec --during db/schema=42',
      'state set db/schema 42',
      'state delete db/schema',
    ],
    ['key_prefix "runlock/.state/db/" { policy = "write" }'],
  ],
  [
    ['state:db/schema=42', 'state get db/schema', 'state list db/', 'state watch db/schema'],
    ['key_prefix "runlock/.state/db/" { policy = "read" }'],
  ],
  [['state list', 'state watch'], ['key_prefix "runlock/.state/" { policy = "read" }']],
  [['state prune'], ['key_prefix "runlock/.state/" { policy = "write" }']],
  [
    ['idle:prod/db', 'blocked:prod/db', 'active:db01@prod/db'],
    ['key_prefix "runlock/prod/db/.slot/" { policy = "read" }'],
  ],
  [['good:db01@prod/db'], ['key "runlock/prod/db/.runs/db01" { policy = "read" }']],
  [['good:*@prod/db'], ['key_prefix "runlock/prod/db/.runs/" { policy = "read" }']],
  [
    ['frozen:prod/db'],
    [
      'key "runlock/prod/db/.freeze" { policy = "read" }',
      'key "runlock/prod/.freeze" { policy = "read" }',
      'key "runlock/.freeze" { policy = "read" }',
    ],
  ],
  [['healthy:web'], ['service "web" { policy = "read" }', 'node_prefix "" { policy = "read" }']],
  [['agent:db01'], ['key "runlock/.agents/db01" { policy = "read" }']],
];

/** One rule a line, as Consul's policies have them. */
export function gatePolicy(): string[] {
  const width = Math.max(...gateRights.map(([rule]) => rule.length));
  return gateRights.map(([rule, when]) => (when === '' ? rule : `${rule.padEnd(width)}  # ${when}`));
}
