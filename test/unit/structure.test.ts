// What `npm run structure` calls a circle.
import { expect, test } from 'vitest';
import { circlesOf, circlesOfFolders, topOf } from '../../scripts/structure/graph.ts';
import { importsOf, readTrees } from '../../scripts/structure/imports.ts';

const graph = (edges: Record<string, string[]>) => new Map(Object.entries(edges));

test('files that import each other, however far around, are one circle', () => {
  const imports = graph({
    'a/one.ts': ['b/two.ts'],
    'b/two.ts': ['c.ts', 'b/three.ts'],
    'b/three.ts': [],
    'c.ts': ['a/one.ts'],
  });
  expect(circlesOf(imports)).toEqual(['a/one.ts ⇄ b/two.ts ⇄ c.ts']);
});

test('two ways to the same file are no circle', () => {
  const imports = graph({ 'a.ts': ['b.ts', 'c.ts'], 'b.ts': ['d.ts'], 'c.ts': ['d.ts'], 'd.ts': [] });
  expect(circlesOf(imports)).toEqual([]);
});

test('folders can be a circle where no files are', () => {
  const imports = graph({
    'a/one.ts': ['b/two.ts'],
    'b/two.ts': [],
    'b/three.ts': ['a/four.ts'],
    'a/four.ts': [],
  });
  expect(circlesOf(imports)).toEqual([]);
  expect(circlesOfFolders(imports)).toEqual(['a ⇄ b']);
});

test('a folder and the file of its name are one thing', () => {
  expect(topOf('consul.ts')).toBe(topOf('consul/request.ts'));
  expect(circlesOfFolders(graph({ 'consul.ts': ['consul/request.ts'], 'consul/request.ts': [] }))).toEqual(
    [],
  );
});

test('in the source no files and no folders import each other in a circle', () => {
  const imports = importsOf(readTrees('src'));
  expect(imports.size).toBeGreaterThan(100);
  expect(circlesOf(imports)).toEqual([]);
  expect(circlesOfFolders(imports)).toEqual([]);
});
