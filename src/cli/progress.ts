/**
 * Progress on a terminal.
 *
 * @module
 */

/** Shows a share of work done on a terminal; nothing where stderr isn't one. */
export function showProgress(label: string): (share: number) => void {
  if (!Deno.stderr.isTerminal()) return () => {};
  const encoder = new TextEncoder();
  return (share) => {
    const end = share >= 1 ? "\r\x1b[K" : "";
    Deno.stderr.writeSync(encoder.encode(`\r${label} ${Math.round(share * 100)}%${end}`));
  };
}
