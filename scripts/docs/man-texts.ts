// What the man page says beside what the command tree says.
export const introduction: readonly string[] = [
  'Put in front of a configuration-management run, runlock waits for a slot of the group in Consul, runs the command, and gives the slot back. Nodes are served in the order in which they came.',
  "If a run fails, is stopped by a signal half-way, or its node vanishes, the node's name stays in the group's slot and keeps the others out until that node's next run succeeds or an operator clears it.",
  'Every option can also be given as RUNLOCK_<OPTION> in the environment, and, unless it is for one call alone, in the configuration file. A flag comes first, then the environment, then the file.',
];

export const environment: readonly (readonly [names: string, meaning: string])[] = [
  [
    'RUNLOCK_<OPTION>',
    'The value of an option that is not given: RUNLOCK_GROUP for --group, RUNLOCK_KILL_AFTER for --kill-after.',
  ],
  [
    'CONSUL_HTTP_ADDR',
    'Where Consul is: host:port, http://..., https://... or unix:///path (default: 127.0.0.1:8500).',
  ],
  [
    'CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE',
    'The token, or a file that has it; the file comes first, and is read again when it is rotated.',
  ],
  [
    'CONSUL_HTTP_AUTH',
    'user:password for HTTP; one in CONSUL_HTTP_ADDR (http://user:password@host) is used where this is not set.',
  ],
  ['CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY', 'Whether to use TLS, and whether to verify the certificate.'],
  [
    'CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME',
    'Certificates, as for the consul program. Without an authority those of the system count.',
  ],
  [
    'SSL_CERT_FILE, SSL_CERT_DIR',
    "Where the system's authorities are, if not where its distribution has them.",
  ],
  ['CONSUL_NAMESPACE, CONSUL_PARTITION', 'Where the keys are, in Consul Enterprise.'],
  ['NO_COLOR, FORCE_COLOR, TERM', 'Whether output has colours. NO_COLOR comes first.'],
  [
    'RUNLOCK_RUN_ID, RUNLOCK_RUN_GROUP, RUNLOCK_RUN_NODE, RUNLOCK_RUN_SLOT, RUNLOCK_FENCING_TOKEN, CONSUL_LOCK_HELD',
    'What exec gives to the command: the id of the run, its group, node and slot, a number that grows with every grant, and true. In several groups, group, slot and number are lists with commas. RUNLOCK_<OPTION> does not reach the command: a runlock inside has flags and the configuration file.',
  ],
];

export const files: readonly (readonly [name: string, meaning: string])[] = [
  ['/etc/runlock/config.toml', 'The configuration file, unless --config names another. It need not exist.'],
  [
    '/etc/runlock/runs.d/<instance>.env',
    'What runlock@<instance>.service runs, with the Debian package: RUNLOCK_COMMAND, and RUNLOCK_<OPTION>.',
  ],
  ['/etc/runlock/token', "Consul's token for these units; for root alone. It need not exist."],
];

export const seeAlso = 'consul(1), flock(1), crontab(5), systemd.timer(5)';
