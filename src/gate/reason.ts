/** The reason of a maintenance that runlock sets: it names the run, and is how runlock knows its own again. Pure. */

const OWN = /^runlock (\S+)$/;

export function maintenanceReason(run: string): string {
  return `runlock ${run}`;
}

/** The run that set a maintenance with this reason; undefined: somebody else did. */
export function runNamed(reason: string): string | undefined {
  return OWN.exec(reason)?.[1];
}
