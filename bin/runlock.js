#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { URL } from 'node:url';

const main = new URL('../dist/main.js', import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  console.error("runlock: it is not built; run 'npm ci && npm run build' in its folder");
  process.exitCode = 78;
}
