/** A task → what `--json` and the text show of it. */
import type { TaskView } from '../../output/tasks.ts';
import type { Defined } from './tasks.ts';

export function viewOf({ task, options }: Pick<Defined, 'task' | 'options'>): TaskView {
  const { params, trigger, ...rest } = task;
  return {
    ...rest,
    params: params.map(({ name, match, fallback, description, dash }) => ({
      name,
      match,
      ...(fallback !== undefined && { default: fallback }),
      ...(description !== undefined && { description }),
      ...(dash && { dash }),
    })),
    ...(trigger && { trigger: { ...trigger, on: trigger.on.map(({ text }) => text) } }),
    options: Object.fromEntries([...options.general].map(([key, { text }]) => [key, text])),
  };
}
