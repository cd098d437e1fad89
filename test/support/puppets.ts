/**
 * The test's end of `puppet_worker.ts`.
 *
 * @module
 */

/** First number of a run that kills a puppet worker. */
export const CRASH = 666;
/** First number of a run that waits until `letGo` is called with the worker's name. */
export const HOLD = 777;

/** Starts puppet workers of the given names, one after the other; the last name is used again. */
export function puppets(...names: string[]): () => Worker {
  const url = new URL("./puppet_worker.ts", import.meta.url);
  return () => new Worker(url, { type: "module", name: names.length > 1 ? names.shift()! : names[0]! });
}

/** Lets everything go that a puppet worker holds or will hold; resolves once it knows. */
export async function letGo(name: string): Promise<void> {
  const channel = new BroadcastChannel(name);
  const gone = Promise.withResolvers<void>();
  channel.onmessage = ({ data }) => data === "gone" ? gone.resolve() : channel.postMessage("go");
  channel.postMessage("go"); // in case that it said "waiting" before this listened
  await gone.promise;
  channel.close();
}
