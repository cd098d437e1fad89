import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import { Generations } from "../../src/runtime/generations.ts";
import type { HostTensor, InferenceEngine } from "../../src/runtime/types.ts";
import { projectionModel } from "../support/models.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";

const input = (...values: number[]): HostTensor => ({
  type: "float32",
  shape: [1, values.length],
  data: new Float32Array(values),
});

/** An engine that only keeps books: which generations are installed. */
function bookkeeper(): InferenceEngine & { readonly installed: Set<number> } {
  const installed = new Set<number>();
  return {
    installed,
    provider: "cpu",
    inputs: [],
    outputs: [],
    install: (generation) => Promise.resolve(void installed.add(generation)),
    run: (generation) => {
      assert(installed.has(generation), `generation ${generation} was run after its release`);
      return Promise.resolve({});
    },
    release: (generation) => Promise.resolve(void installed.delete(generation)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const model = projectionModel(2, [[1], [1]]);

Deno.test("generations: numbered from 1, in their reports too, and none serves before it is activated", async () => {
  const generations = new Generations(bookkeeper());
  assertThrows(() => generations.current, TuckerdError, "No generation is serving");
  assertEquals(await generations.add(model), 1);
  assertThrows(() => generations.resolve(), TuckerdError, "No generation is serving");
  generations.activate(1);
  assertEquals(await generations.add(model), 2);
  assertEquals(generations.current, 1);
  assertEquals(generations.list().map(({ number, report }) => [number, report.generation]), [[1, 1], [2, 2]]);
  assertEquals(generations.report(2).generation, 2);
  assertEquals(generations.report().generation, 1);
});

Deno.test("generations: a number that isn't held is not-found and lists those that are", async () => {
  const generations = new Generations(bookkeeper());
  await generations.add(model);
  await generations.add(model);
  for (const attempt of [() => generations.resolve(7), () => generations.activate(7), () => generations.report(7)]) {
    const error = assertThrows(attempt, TuckerdError, "held are 1, 2");
    assertEquals([error.kind, error.fields["held"]], ["not-found", [1, 2]]);
  }
  await assertRejects(() => generations.use(7, () => Promise.resolve()), TuckerdError, "Generation 7");
});

Deno.test("generations: the oldest beyond the limit are freed, never the serving one", async () => {
  const engine = bookkeeper();
  const generations = new Generations(engine, { keep: 3 });
  await generations.add(model);
  generations.activate(1);
  for (let added = 2; added <= 5; added++) await generations.add(model);
  assertEquals(generations.list().map(({ number }) => number), [1, 4, 5]);
  assertEquals([...engine.installed], [1, 4, 5]);
  generations.activate(5);
  await generations.add(model);
  assertEquals(generations.list().map(({ number }) => number), [4, 5, 6]);
});

Deno.test("generations: with room for one, the new one takes the old one's place when it is activated", async () => {
  const engine = bookkeeper();
  const generations = new Generations(engine, { keep: 1 });
  generations.activate(await generations.add(model));
  const added = await generations.add(model);
  assertEquals([...engine.installed], [1, 2]);
  generations.activate(added);
  assertEquals([...engine.installed], [2]);
});

Deno.test("generations: one that is evicted during a request is freed after it", async () => {
  const engine = bookkeeper();
  const generations = new Generations(engine, { keep: 1 });
  generations.activate(await generations.add(model));
  const evicted = Promise.withResolvers<void>();
  const request = generations.use(undefined, async (run, generation) => {
    await evicted.promise;
    await run({});
    return generation;
  });
  generations.activate(await generations.add(model));
  assertThrows(() => generations.resolve(1), TuckerdError, "held are 2");
  assertEquals([...engine.installed], [1, 2]);
  evicted.resolve();
  assertEquals(await request, 1);
  assertEquals([...engine.installed], [2]);
});

Deno.test("generations: a request that fails unpins its generation", async () => {
  const engine = bookkeeper();
  const generations = new Generations(engine, { keep: 1 });
  generations.activate(await generations.add(model));
  await assertRejects(() => generations.use(1, () => Promise.reject(new RangeError("planted"))), RangeError, "planted");
  generations.activate(await generations.add(model));
  assertEquals([...engine.installed], [2]);
});

Deno.test("generations: a model that doesn't load leaves the serving one", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  const generations = new Generations(engine);
  generations.activate(await generations.add(model));
  await assertRejects(
    () => generations.add({ ...model, structure: "bad", graph: { bytes: new Uint8Array(9) } }),
    TuckerdError,
  );
  assertEquals(generations.list().map(({ number }) => number), [1]);
  assertEquals(generations.current, 1);
});

/** Factors of random rank for the projection of generation `n`, drawn from its number so that answers can be checked. */
function randomFactor(random: Random, size: number): number[][] {
  const rank = integer(random, 1, 5);
  return Array.from({ length: size }, () => Array.from({ length: rank }, () => integer(random, -9, 9)));
}

Deno.test("generations: under load every answer is that of the generation it names, while 40 are added and evicted", async () => {
  const random = seededRandom("generations under load");
  await using engine = await createEngine({ provider: "cpu" });
  const generations = new Generations(engine, { keep: 3 });
  const factors = new Map<number, number[][]>();
  const size = 4;
  const add = async (): Promise<void> => {
    const factor = randomFactor(random, size);
    // One in four has another structure, so sessions come and go too.
    const structure = integer(random, 0, 3) === 0 ? "other" : "usual";
    const number = await generations.add({ ...projectionModel(size, factor), structure });
    factors.set(number, factor);
    generations.activate(number);
  };
  await add();
  let adding = true, answered = Promise.withResolvers<void>();
  const client = async (): Promise<void> => {
    while (adding) {
      const x = Array.from({ length: size }, () => integer(random, -9, 9));
      const [generation, { y }] = await generations.use(
        undefined,
        async (run, generation) => {
          await run({ x: input(...x) }); // a request may need several runs on its generation
          return [generation, await run({ x: input(...x) })] as const;
        },
      );
      const factor = factors.get(generation)!;
      const expected = factor[0]!.map((_, column) =>
        x.reduce((sum, value, row) => sum + value * factor[row]![column]!, 0)
      );
      assertEquals([...y!.data], expected, `generation ${generation}`);
      answered.resolve();
    }
  };
  const clients = Array.from({ length: 8 }, client);
  try {
    for (let added = 0; added < 40; added++) {
      await add();
      answered = Promise.withResolvers();
      await Promise.race([answered.promise, ...clients]); // at least one answer on each generation
    }
  } finally {
    adding = false;
    await Promise.all(clients);
  }
  assertEquals(generations.list().map(({ number }) => number), [39, 40, 41]);
});
