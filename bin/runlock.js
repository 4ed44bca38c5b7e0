#!/usr/bin/env node
/* global require, __dirname -- CommonJS (package.json): Node starts it sooner than an ES module. */
const { existsSync } = require('node:fs');
const { join } = require('node:path');

const main = join(__dirname, '../dist/main.cjs');
if (existsSync(main)) {
  require(main);
} else {
  console.error("runlock: it is not built; run 'npm ci && npm run build' in its folder");
  process.exitCode = 78;
}
