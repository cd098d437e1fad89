/**
 * Folders for what a test writes.
 *
 * @module
 */

/** An empty folder that is gone, with all that is in it, at the end of its scope. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
