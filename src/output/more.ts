/** The end of a list that was cut. */
export function moreText(count: number): string[] {
  return count > 0 ? [`  … and ${count.toLocaleString('en-US')} more`] : [];
}
