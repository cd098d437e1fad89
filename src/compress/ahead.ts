/**
 * Work in order, each piece begun before the one before it is done: a GPU computes one layer while the host prepares and
 * uploads the next.
 *
 * @module
 */

/** Pieces that are under way at most: each holds a layer's weights. */
const UNDER_WAY = 2;

/**
 * Runs a piece of work for each item and gives the results in order. The next piece begins when the present one says so by
 * calling `next`, at the latest when it is done; no more than two are under way. After an error no further piece begins, and
 * the error is thrown when the other piece has ended.
 */
export async function* ahead<T, R>(
  items: readonly T[],
  run: (item: T, next: () => void) => Promise<R>,
): AsyncGenerator<R> {
  const started: Promise<R>[] = [];
  let begun = 0, finished = 0, allowed = 1, failed = false;
  const begin = (): void => {
    while (!failed && begun < Math.min(items.length, allowed, finished + UNDER_WAY)) {
      const index = begun++;
      const piece = run(items[index]!, () => allow(index + 2));
      piece.catch(() => failed = true); // thrown when its turn comes
      started[index] = piece;
    }
  };
  const allow = (count: number): void => {
    allowed = Math.max(allowed, count);
    begin();
  };
  try {
    begin();
    while (finished < items.length) {
      const result = await started[finished]!;
      finished++;
      allow(finished + 1);
      yield result;
    }
  } finally {
    failed = true;
    await Promise.allSettled(started);
  }
}
