/** Who imports whom, and where that goes round in a circle. Pure. */

/** By file, relative to src: the files that it imports. */
export type Imports = ReadonlyMap<string, readonly string[]>;

/** The folder at the top of src that a file is in, or the file itself. A file and a folder of one name are one thing. */
export const topOf = (file: string): string => (file.split('/')[0] ?? file).replace(/\.ts$/, '');

/** Each circle of files, as `a ⇄ b ⇄ c`. */
export const circlesOf = (imports: Imports): string[] =>
  components(imports).map((circle) => circle.sort().join(' ⇄ '));

/** Each circle of folders, with the imports that make it one. */
export function circlesOfFolders(imports: Imports): string[] {
  const folders = new Map<string, Set<string>>();
  for (const [file, all] of imports) {
    const to = folders.get(topOf(file)) ?? new Set();
    for (const each of all) if (topOf(each) !== topOf(file)) to.add(topOf(each));
    folders.set(topOf(file), to);
  }
  return components(new Map([...folders].map(([name, to]) => [name, [...to]]))).map((circle) =>
    circle.sort().join(' ⇄ '),
  );
}

/** Strongly connected components of more than one (Tarjan, 1972). */
function components(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const order = new Map<string, number>();
  const stack: string[] = [];
  const visit = (name: string): number => {
    const own = order.size;
    order.set(name, own);
    let low = own;
    stack.push(name);
    for (const next of graph.get(name) ?? []) {
      if (!order.has(next)) low = Math.min(low, visit(next));
      else if (stack.includes(next)) low = Math.min(low, order.get(next) ?? low);
    }
    if (low === own) {
      const circle = stack.splice(stack.indexOf(name));
      if (circle.length > 1) found.push(circle);
    }
    return low;
  };
  for (const name of graph.keys()) if (!order.has(name)) visit(name);
  return found;
}
