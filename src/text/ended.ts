/** What ran, and how that ended: `puppet, exit 4`. */
export function endedText({
  command = '?',
  exitCode,
  unhealthy,
}: {
  readonly command?: string;
  readonly exitCode?: number;
  /** Its node was not healthy after it. */
  readonly unhealthy?: boolean;
}): string {
  if (unhealthy) return `${command}, unhealthy after it`;
  return exitCode === undefined ? command : `${command}, exit ${exitCode}`;
}
