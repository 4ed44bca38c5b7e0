import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

// Data flows one way: main → cli → commands → lock → consul. Each row says what its files may import;
// everything else is refused. `child`, `guard` and `output` are leaves that know nothing of the lock.
const packages = ['chalk', 'commander', 'consul', 'p-retry', 'smol-toml'];
const lock = ['errors', 'deps', 'hint', 'consul'];
const leaves = ['child', 'words', 'guard', 'output', 'options', 'tools', 'process/*'];
const rows = [
  {
    files: [
      'src/errors.ts',
      'src/deps.ts',
      'src/operator.ts',
      'src/hint.ts',
      'src/licenses.ts',
      'src/nearest.ts',
      'src/guard-script.ts',
      'src/process/streams.ts',
    ],
    may: [],
  },
  { files: ['src/options.ts', 'src/tools.ts'], may: ['errors', 'deps'] },
  { files: ['src/process/signal-probe.ts'], may: ['deps'] },
  { files: ['src/config.ts'], may: ['errors', 'options', 'nearest', 'config/*'] },
  { files: ['src/config/*.ts'], may: ['errors'], packages: ['smol-toml'] },
  { files: ['src/tree.ts'], may: ['process/mark'] },
  { files: ['src/process/mark.ts'], may: [] },
  { files: ['src/process/cgroup.ts'], may: ['deps'] },
  { files: ['src/kill.ts'], may: ['deps', 'tree', 'process/cgroup'] },
  { files: ['src/clock.ts'], may: ['deps'] },
  { files: ['src/metrics.ts'], may: ['errors', 'process/*'] },
  { files: ['src/guard-post.ts'], may: ['deps', 'guard-script', 'process/*'] },
  { files: ['src/guard.ts'], may: ['errors', 'deps', 'guard-script', 'guard-post'] },
  { files: ['src/words.ts'], may: ['errors'] },
  { files: ['src/child.ts'], may: ['errors', 'deps', 'tree', 'process/*', 'kill'] },
  { files: ['src/output.ts'], may: ['errors', 'deps'], packages: ['chalk'] },
  { files: ['src/output/*.ts'], may: ['errors', 'output', './*'] },
  { files: ['src/completion/*.ts'], may: [] },
  { files: ['src/log.ts'], may: ['deps', 'output'] },
  { files: ['src/consul.ts'], may: ['errors', 'deps', 'consul/*'] },
  {
    files: ['src/consul/*.ts'],
    may: ['errors', 'deps', 'process/shortage', 'process/read-given', './*'],
    packages: ['consul', 'p-retry'],
  },
  { files: ['src/lock/*.ts'], may: [...lock, './*'] },
  { files: ['src/gate/*.ts'], may: [...lock, 'nearest', 'lock/*', './*'] },
  { files: ['src/process/*.ts'], may: ['errors', 'deps', 'tree', './*'] },
  { files: ['src/process/signals.ts'], may: ['platform'] },
  { files: ['src/platform.ts'], may: ['deps', 'consul', 'process/*'] },
  { files: ['src/run.ts'], may: ['errors', 'licenses', 'platform', 'cli/invocation', 'run/*'] },
  {
    files: ['src/run/*.ts'],
    may: [
      ...lock,
      'platform',
      'gate/*',
      'metrics',
      'output',
      'output/*',
      'cli/invocation',
      'commands/*',
      'commands/*/*',
      'completion/*',
      'process/*',
      './*',
    ],
  },
  {
    files: ['src/commands/*.ts'],
    may: [...lock, ...leaves, 'platform', 'gate/*', 'lock/*', 'output/*', './*', './*/*'],
  },
  {
    // The parts of a command. What several commands wait with, and say while they do, is in `wait`.
    files: ['src/commands/*/*.ts'],
    may: [...lock, ...leaves, 'platform', 'gate/*', 'lock/*', 'output/*']
      .map((name) => `../${name}`)
      .concat('./*', 'exec-deps', 'gate-progress', 'wait/*', 'status', 'status/explain'),
  },
  { files: ['src/cli.ts'], may: ['errors', 'options', 'cli/*'], packages: ['commander'] },
  {
    files: ['src/cli/*.ts'],
    may: ['errors', 'hint', 'options', 'config', 'platform', 'commands/*', 'commands/*/*', './*'],
    packages: ['commander'],
  },
];

/** A file's imports below src, as its row names them: `errors`, `lock/slot`, or `./slot` for a neighbour in its folder. */
function boundary({ files, may, packages: own = [] }) {
  const nested = files[0].split('/').length > 2;
  const allowed = may.map((name) => {
    const path = name.startsWith('./') ? name : `${nested ? '../' : './'}${name}`;
    return `${path.replaceAll('.', '\\.').replaceAll('*', '[a-z-]+')}\\.ts$`;
  });
  const message =
    'Data flows main → cli → commands → lock → consul; eslint.config.js says who may import whom.';
  return {
    files,
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [{ regex: `^(?=\\.)(?!(?:${['(?!)', ...allowed].join('|')}))`, message }],
          paths: packages.filter((name) => !own.includes(name)).map((name) => ({ name, message })),
        },
      ],
    },
  };
}

const exports = [
  { selector: 'ExportAllDeclaration', message: 'No barrels: import from the file that defines it.' },
  { selector: 'ExportDefaultDeclaration', message: 'Named exports only.' },
];
// A handler for a signal that the caller ignores would bring it back.
const handlers = {
  selector: 'CallExpression[callee.property.name=/^(on|once|off)$/][arguments.0.value=/^SIG/]',
  message: 'Only src/process/signals.ts installs handlers for signals.',
};

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/'] },
  eslint.configs.recommended,
  ...tseslint.configs.strictTypeChecked.map((config) => ({ ...config, files: ['**/*.ts'] })),
  {
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      'no-restricted-syntax': ['error', ...exports],
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/main.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        { name: 'process', message: 'Only src/main.ts reads process; take it from Deps.' },
      ],
      'no-console': 'error',
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/process/signals.ts'],
    rules: { 'no-restricted-syntax': ['error', ...exports, handlers] },
  },
  ...rows.map(boundary),
  {
    files: ['*.config.ts'],
    rules: { 'no-restricted-syntax': 'off' },
  },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', console: 'readonly' } } },
);
