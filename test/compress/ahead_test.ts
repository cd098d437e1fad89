import { assertEquals, assertRejects } from "@std/assert/mod.js";
import { ahead } from "../../src/compress/ahead.ts";

/** Pieces of work that a test ends by hand, and the order in which things happened. */
class Bench {
  readonly events: string[] = [];
  readonly #ends = new Map<number, PromiseWithResolvers<void>>();
  readonly #nexts = new Map<number, () => void>();

  readonly run = async (item: number, next: () => void): Promise<string> => {
    this.events.push(`begin ${item}`);
    this.#nexts.set(item, next);
    const end = Promise.withResolvers<void>();
    this.#ends.set(item, end);
    await end.promise;
    this.events.push(`end ${item}`);
    return `result ${item}`;
  };

  uploaded(item: number): void {
    this.#nexts.get(item)!();
  }

  async end(item: number, error?: Error): Promise<void> {
    if (error === undefined) this.#ends.get(item)!.resolve();
    else this.#ends.get(item)!.reject(error);
    await turn();
  }
}

/** Lets every continuation run that can. */
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

function collect(bench: Bench, items: readonly number[]): Promise<string[]> {
  return (async () => {
    const results: string[] = [];
    for await (const result of ahead(items, bench.run)) results.push(result);
    return results;
  })();
}

Deno.test("the next piece begins when the present one says so, and results come in order", async () => {
  const bench = new Bench();
  const results = collect(bench, [0, 1, 2, 3]);
  await turn();
  assertEquals(bench.events, ["begin 0"]);
  bench.uploaded(0);
  assertEquals(bench.events, ["begin 0", "begin 1"]);
  bench.uploaded(1);
  bench.uploaded(1); // twice is as good as once
  assertEquals(bench.events, ["begin 0", "begin 1"], "two are under way at most");
  await bench.end(1);
  assertEquals(bench.events, ["begin 0", "begin 1", "end 1"], "the first result is still awaited");
  await bench.end(0);
  assertEquals(bench.events, ["begin 0", "begin 1", "end 1", "end 0", "begin 2"]);
  await bench.end(2);
  await bench.end(3);
  assertEquals(await results, ["result 0", "result 1", "result 2", "result 3"]);
});

Deno.test("pieces that never say so run one after the other", async () => {
  const bench = new Bench();
  const results = collect(bench, [0, 1]);
  await turn();
  await bench.end(0);
  await bench.end(1);
  assertEquals(await results, ["result 0", "result 1"]);
  assertEquals(bench.events, ["begin 0", "end 0", "begin 1", "end 1"]);
  assertEquals(await collect(new Bench(), []), []);
});

Deno.test("an error is thrown when the other piece has ended, and nothing begins after it", async () => {
  for (const faulty of [0, 1]) {
    const bench = new Bench();
    let settled = false;
    const results = collect(bench, [0, 1, 2]);
    results.then(() => settled = true, () => settled = true);
    await turn();
    bench.uploaded(0);
    bench.uploaded(1);
    await bench.end(faulty, new Error(`piece ${faulty} failed`));
    assertEquals(settled, false, "the other piece is still under way");
    await bench.end(1 - faulty);
    await assertRejects(() => results, Error, `piece ${faulty} failed`);
    assertEquals(bench.events, ["begin 0", "begin 1", `end ${1 - faulty}`]);
  }
});
