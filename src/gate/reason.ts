/**
 * The reason of a maintenance that runlock sets. It names the run, so that runlock can recognise its own maintenance.
 * Pure.
 */

const OWN = /^runlock (\S+)$/;

export function maintenanceReason(run: string): string {
  return `runlock ${run}`;
}

/** The run that set a maintenance with this reason; undefined: runlock did not set it. */
export function runNamed(reason: string): string | undefined {
  return OWN.exec(reason)?.[1];
}
