import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

// Who may import whom: a folder of src its own files, and those of the folders that its row names, which all stand above
// it. So data flows one way, main → commands → runner → view → gate → lock → consul, and nothing runs back up.
const below = [
  // folder, what it may import, packages of npm that are for it alone
  ['text', [], ['chalk']],
  ['events', ['errors', 'text']],
  ['platform', ['errors', 'text', 'events']],
  ['process', ['errors', 'events', 'platform']],
  ['metrics', ['errors']],
  ['consul', ['errors', 'text', 'events', 'platform'], ['consul', 'p-retry']],
  ['lock', ['errors', 'text', 'events', 'platform', 'consul']],
  ['gate', ['errors', 'text', 'events', 'platform', 'consul', 'lock']],
  ['state', ['errors', 'text', 'platform', 'consul', 'lock']],
  ['conditions', ['errors', 'text', 'platform', 'consul', 'lock', 'gate', 'state']],
  ['jobs', ['errors', 'text', 'platform', 'consul', 'lock', 'gate', 'state', 'conditions']],
  ['view', ['errors', 'text', 'platform', 'consul', 'lock', 'gate', 'state', 'conditions', 'jobs']],
  ['output', ['errors', 'text', 'platform', 'view']],
  [
    'runner',
    [
      'errors',
      'text',
      'events',
      'platform',
      'process',
      'consul',
      'lock',
      'gate',
      'state',
      'conditions',
      'jobs',
      'view',
      'output',
    ],
  ],
  [
    'agent',
    [
      'errors',
      'text',
      'events',
      'platform',
      'process',
      'consul',
      'lock',
      'gate',
      'state',
      'conditions',
      'jobs',
    ],
  ],
  ['cli', ['errors', 'text', 'platform'], ['commander', 'smol-toml']],
  [
    'commands',
    [
      'errors',
      'text',
      'events',
      'platform',
      'process',
      'metrics',
      'consul',
      'lock',
      'gate',
      'state',
      'conditions',
      'jobs',
      'view',
      'output',
      'runner',
      'agent',
      'cli',
    ],
    ['commander'],
  ],
];
// execa is for tests and scripts (ADR 1).
const packages = [...new Set(below.flatMap(([, , own = []]) => own)), 'execa'];

/** The row's rule for the files of its folder, and for those of the folders in it. */
function boundaries([folder, may, own = []]) {
  const message = `src/${folder} imports from ${['itself', ...may].join(', ')} alone; eslint.config.js says who may import whom.`;
  return [0, 1].map((depth) => {
    const up = String.raw`\.\./`.repeat(depth);
    const elsewhere = may.map((name) => String.raw`${up}\.\./${name}(?:/|\.ts$)`);
    const inside = depth === 0 ? [String.raw`\./`] : [String.raw`\./`, String.raw`\.\./(?!\.\.)`];
    return {
      files: [`src/${folder}${'/*'.repeat(depth)}/*.ts`],
      rules: {
        'no-restricted-imports': [
          'error',
          {
            patterns: [{ regex: `^(?=\\.)(?!${[...inside, ...elsewhere].join('|')})`, message }],
            paths: packages.filter((name) => !own.includes(name)).map((name) => ({ name, message })),
          },
        ],
      },
    };
  });
}

const exports = [
  { selector: 'ExportAllDeclaration', message: 'No barrels: import from the file that defines it.' },
  { selector: 'ExportDefaultDeclaration', message: 'Named exports only.' },
];
// A handler for a signal that the caller ignores would bring it back.
const handlers = {
  selector: 'CallExpression[callee.property.name=/^(on|once|off)$/][arguments.0.value=/^SIG/]',
  message: 'Only src/platform/signals.ts installs handlers for signals.',
};
// A report is read name by name: what is common to several tests is said once, by their describe.
const LONGEST_NAME = 90;
const shortNames = {
  create: (context) => ({
    CallExpression({ callee, arguments: [name] }) {
      const called = context.sourceCode.getText(callee);
      if (!/^(?:test|describe)\b/.test(called) || /\.(?:each|for|skipIf|runIf)$/.test(called)) return;
      const parts = name.quasis?.map(({ value }) => value.cooked) ?? [String(name.value ?? '')];
      if (parts.join('').length > LONGEST_NAME)
        context.report({ node: name, message: `A test's name has at most ${LONGEST_NAME} characters.` });
    },
  }),
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
    ignores: ['src/platform/signals.ts'],
    rules: { 'no-restricted-syntax': ['error', ...exports, handlers] },
  },
  { files: ['src/errors.ts'], rules: { 'no-restricted-imports': ['error', { patterns: ['*'] }] } },
  ...below.flatMap(boundaries),
  {
    files: ['test/**/*.ts'],
    plugins: { runlock: { rules: { 'short-names': shortNames } } },
    rules: { 'runlock/short-names': 'error' },
  },
  {
    files: ['*.config.ts'],
    rules: { 'no-restricted-syntax': 'off' },
  },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', console: 'readonly' } } },
);
