// What a wait for the gate says, and when it says it again.
import { expect, test } from 'vitest';
import { tellLooks } from '../../src/gate/progress.ts';
import { decideGate } from '../../src/gate/decide.ts';
import type { Instance } from '../../src/gate/instances.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Emit } from '../../src/events/events.ts';

const at = (node: string, why?: string): Instance => ({
  ...{ node, serviceId: `web-${node}`, service: 'web', maintenance: [] },
  ...(why === undefined ? { state: 'healthy' } : { state: 'offline', why }),
});

function hear() {
  const said: [string, string][] = [];
  const emit: Emit = (event) => {
    const { level, message } = sentenceOf(event);
    said.push([level, message]);
  };
  const tell = tellLooks({ emit }, 'web01');
  const look = (instances: readonly Instance[], more: { minHealthy?: number } = {}) =>
    tell([decideGate({ service: 'web', instances, node: 'web01', maxOffline: 1, ...more })]);
  return { said, look };
}

test('each set of peers once, whatever their checks print by then; and that it is open', () => {
  const { said, look } = hear();
  look([at('web01'), at('web02', 'http: 17:01:03 refused')]);
  look([at('web01'), at('web02', 'http: 17:01:13 refused')]);
  look([at('web01'), at('web02', 'http: refused'), at('web03', 'http: refused')]);
  look([at('web01'), at('web02')]);
  expect(said).toEqual([
    ['info', 'web01 is waiting for the gate of web: web02 (http: 17:01:03 refused)'],
    ['info', 'web01 is waiting for the gate of web: web02 (http: refused), web03 (http: refused)'],
    ['info', 'the gate is open for web01'],
  ]);
});

test('where no peer is the reason, the reason; as a warning where waiting does not help', () => {
  const few = hear();
  few.look([at('web01'), at('web02')], { minHealthy: 2 });
  expect(few.said).toEqual([
    [
      'info',
      'web01 is waiting for the gate of web: 0 of 2 offline; without web01 1 would stay healthy (min 2)',
    ],
  ]);
  const many = hear();
  many.look([at('web01'), { ...at('web01'), serviceId: 'web-2' }]);
  expect(many.said).toEqual([
    [
      'warning',
      'web01 is waiting for the gate of web: web01 alone has 2 of 2 instances, more than may be offline (max 1); raise --max-offline',
    ],
  ]);
});
