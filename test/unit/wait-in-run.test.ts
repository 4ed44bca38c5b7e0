// What a wait inside a run is told: where its condition belongs instead.
import { expect, test } from 'vitest';
import { insideOf, runOf } from '../../src/conditions/own-run.ts';
import { sentenceOf } from '../../src/events/sentence.ts';

const env = { RUNLOCK_RUN_ID: 'r', RUNLOCK_RUN_NODE: 'n', RUNLOCK_RUN_GROUP: 'a,b' };

test.each([
  [env, "give --when to the 'runlock exec' that started this run"],
  [{ ...env, RUNLOCK_TASK: 'chef' }, 'write when = […] into the file of task chef'],
])('of %j', (of, said) => {
  const own = runOf(of);
  const { message } = sentenceOf({
    event: 'wait-in-run',
    ...insideOf(own ?? { run: '', node: '', groups: [] }),
  });
  expect(message).toContain('keeps its slot of a,b meanwhile; to wait without a slot, ');
  expect(message).toContain(said);
});
