// What the man page says beside what the command tree says.
export const introduction: readonly string[] = [
  'runlock starts a configuration-management run: runlock waits for a slot of the group in Consul, runs the command, and releases the slot. Nodes are served first come, first served.',
  "If a run fails, is stopped half-way by a signal, or its node vanishes, the node's claim stays and blocks the group until the node's next run succeeds or an operator clears the claim.",
  'Each host needs its own Consul agent, from which runlock takes the name of the node. Where several nodes share one agent, name each with --node.',
];

export const configuration: readonly string[] = [
  'The file is TOML: options by their long names, with underscores. A section for a group counts for that group and the groups below it.',
  'Flags override the environment (RUNLOCK_<OPTION>), which overrides the file. In the file the nearest group section overrides those above it, and the top of the file.',
  "Options for one call alone (--force, --owner, --json) and Consul's token are not allowed. If the file has a mistake, nothing runs (exit 78), and the message names the line and the key. 'runlock config' shows the value of each option, and where the value comes from.",
];

export const configurationSample: readonly string[] = [
  'wait = "30m"',
  'ok_codes = [0, 213]',
  '',
  '[groups.prod]            # and every group below it',
  'hold = "4h"',
  '',
  '[groups."prod/web"]',
  'slots = 3',
];

export const rights = {
  least: 'If Consul has ACLs, the token of the node web01 needs these rules to run in prod/web:',
  freeze: 'The last two rules let a freeze of a group above stop this group too.',
  gate: 'For --service, and for gate, the token needs these rules too:',
  states:
    'States and conditions need these rules. A run needs none of them for conditions about its own group:',
  others:
    "status and history of one group need 'read' instead of 'write'. For all groups they need key_prefix \"runlock/\" { policy = \"read\" }. 'runlock doctor -g GROUP' tries each right, and names those that are missing.",
};

export const environment: readonly (readonly [names: string, meaning: string])[] = [
  [
    'RUNLOCK_<OPTION>',
    'The value of an option whose flag is not given: RUNLOCK_GROUP for --group, RUNLOCK_KILL_AFTER for --kill-after.',
  ],
  [
    'CONSUL_HTTP_ADDR',
    'Where Consul is: host:port, http://..., https://... or unix:///path (default: 127.0.0.1:8500).',
  ],
  [
    'CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE',
    'The token, or a file that holds it. The file overrides the variable, and is read again when it is rotated.',
  ],
  [
    'CONSUL_HTTP_AUTH',
    'user:password for HTTP. Without it, a user and password in CONSUL_HTTP_ADDR (http://user:password@host) are used.',
  ],
  ['CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY', 'Whether to use TLS, and whether to verify the certificate.'],
  [
    'CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME',
    'Certificates, as for the consul program. Without CONSUL_CACERT and CONSUL_CAPATH, the certificate authorities of the system are used.',
  ],
  [
    'SSL_CERT_FILE, SSL_CERT_DIR',
    'Where the certificate authorities of the system are, if not in the usual place of the distribution.',
  ],
  ['CONSUL_NAMESPACE, CONSUL_PARTITION', 'Where the keys are, in Consul Enterprise.'],
  ['NO_COLOR, FORCE_COLOR, TERM', 'Whether output has colours. NO_COLOR overrides the others.'],
  [
    'RUNLOCK_RUN_ID, RUNLOCK_RUN_GROUP, RUNLOCK_RUN_NODE, RUNLOCK_RUN_SLOT, RUNLOCK_FENCING_TOKEN, CONSUL_LOCK_HELD',
    'What exec gives to the command: the id of the run, its group, node and slot, a number that grows with every grant, and true. In several groups, group, slot and number are lists with commas. RUNLOCK_<OPTION> is not passed to the command: a runlock that the command starts takes its options only from its own flags and the configuration file.',
  ],
];

export const files: readonly (readonly [name: string, meaning: string])[] = [
  ['/etc/runlock/config.toml', 'Configuration file, unless --config names another. Optional.'],
  [
    '/etc/runlock/runs.d/<instance>.env',
    'Command and options of runlock@<instance>.service in the Debian package: RUNLOCK_COMMAND and RUNLOCK_<OPTION>.',
  ],
  [
    '/etc/runlock/token',
    "Consul's token for these units; keep it readable for root alone. Optional. Purging the Debian package removes it.",
  ],
];

export const seeAlso = 'consul(1), flock(1), crontab(5), systemd.timer(5)';
