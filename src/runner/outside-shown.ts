/** What a run that waits without a slot shows of it: lines of the log, and one live line on a terminal. */
import type { Verdict } from '../gate/decide.ts';
import { describeClosed, waitedFor } from '../gate/describe.ts';
import { tellLooks } from '../gate/progress.ts';
import { cut } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import type { ExecDeps } from './options.ts';

interface Shown {
  /** `missing`: what `ConditionReason` gives. */
  readonly look: (verdicts: readonly Verdict[], missing: readonly string[]) => void;
  readonly end: () => void;
}

/** `quiet`: the run does not wait. `node`: of its gate. */
export function showWait(
  deps: Pick<ExecDeps, 'emit' | 'terminal'>,
  { node, run, quiet }: { readonly node: string | undefined; readonly run: string; readonly quiet: boolean },
): Shown {
  if (quiet) return { look: () => undefined, end: () => undefined };
  const tell = node === undefined ? () => undefined : tellLooks(deps, node, { run });
  const { terminal } = deps;
  return {
    look: (verdicts, missing) => {
      tell(verdicts);
      const peers = waitedFor(verdicts) || (node === undefined ? '' : describeClosed(verdicts, node));
      const [first, ...others] = missing;
      const more = others.length > 0 ? ` and ${others.length} more` : '';
      const parts = [
        ...(peers === '' ? [] : [`at the gate for ${peers}`]),
        ...(first === undefined ? [] : [`for ${first}${more}`]),
      ];
      const line = parts.length === 0 ? '' : visible(`waiting ${parts.join('; ')}`);
      terminal?.draw(cut(line, Math.max(1, terminal.columns() - 1)));
    },
    end: () => terminal?.draw(''),
  };
}
