// docs/logs.md has the events of the union that are lines of the log, with their fields, and no others: steps have no line.
import { readFileSync } from 'node:fs';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

const FILE = 'src/events/events.ts';
const page = readFileSync('docs/logs.md', 'utf8');

/** The names of an event's fields, each with a question mark where it may be missing. */
type Fields = ReadonlySet<string>;

/** As the compiler sees them: what is not in every form of an event may be missing. */
function eventsOfTheUnion(): ReadonlyMap<string, Fields> {
  const program = ts.createProgram([FILE], {
    ...{ strict: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: true, types: [] },
    ...{ target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext, allowImportingTsExtensions: true },
  });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(FILE);
  const found = source?.statements.find(
    (each): each is ts.TypeAliasDeclaration =>
      ts.isTypeAliasDeclaration(each) && each.name.text === 'LogEvent',
  );
  if (!found) throw new Error(`${FILE} has no LogEvent`);
  const union = checker.getTypeAtLocation(found.name);
  const forms = new Map<string, ReadonlyMap<string, boolean>[]>();
  for (const form of union.isUnion() ? union.types : []) {
    const properties = checker.getPropertiesOfType(form);
    const of = (name: string) => properties.find((property) => property.name === name);
    const event = of('event');
    const type = event && checker.getTypeOfSymbol(event);
    const names = type?.isUnion() ? type.types : [type];
    const fields = properties
      .filter(({ name }) => name !== 'event' && name !== 'detail')
      .map((property) => [property.name, (property.flags & ts.SymbolFlags.Optional) !== 0] as const);
    for (const name of names)
      // The one without a name stands in no table.
      if (name?.isStringLiteral()) forms.set(name.value, [...(forms.get(name.value) ?? []), new Map(fields)]);
  }
  return new Map(
    [...forms].map(([event, all]) => {
      const names = [...new Set(all.flatMap((form) => [...form.keys()]))];
      const isOptional = (name: string) => all.some((form) => form.get(name) ?? true);
      return [event, new Set(names.map((name) => `${name}${isOptional(name) ? '?' : ''}`))];
    }),
  );
}

/** The rows of the table that follows the comment: events, and the cell of their fields if the table has one. */
function rowsAfter(comment: string): (readonly [string, string | undefined])[] {
  const [, rest = ''] = page.split(`<!-- ${comment}:`);
  const lines = rest.split('\n').slice(1);
  const rows = lines.slice(
    0,
    lines.findIndex((line) => line === ''),
  );
  const cells = rows.slice(2).map((line) => line.slice(2, -2).split(' | '));
  return cells.flatMap((row) =>
    quoted(row[0] ?? '').map((event) => [event, row.length > 3 ? row[2] : undefined] as const),
  );
}

const quoted = (cell: string) =>
  [...cell.matchAll(/`([\w-]+)`(\?)?/g)].map(([, name = '', mark = '']) => `${name}${mark}`);

/** Of `acquire` alone, below the tables: as `granted`, of what was held before. */
const ALREADY = 'already-held';
const told = [...rowsAfter('events'), ...rowsAfter('gate events'), ...rowsAfter('more events')];
const events = eventsOfTheUnion();

test('the page has every event, and no other', () => {
  expect(page).toContain(`\`${ALREADY}\``);
  expect([...told.map(([event]) => event), ALREADY].sort()).toEqual([...events.keys()].sort());
});

describe('the page has the fields of', () => {
  const withFields = told.flatMap(([event, cell]) => (cell === undefined ? [] : [[event, cell] as const]));

  test.each(withFields)('%s', (event, cell) => {
    // What only `acquire` adds to a run's own events is told below the table.
    const ofAcquire = event === 'granted' ? ['since?', 'heldUntil?'] : [];
    expect([...quoted(cell), ...ofAcquire].sort()).toEqual([...(events.get(event) ?? [])].sort());
  });
});

test('no event has a field that would pass for the time, the level or the sentence', () => {
  const fields = [...events.values()].flatMap((each) => [...each]);
  for (const name of ['time', 'level', 'message']) {
    expect(fields).not.toContain(name);
    expect(fields).not.toContain(`${name}?`);
  }
});
