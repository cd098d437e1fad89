import { assertEquals, assertRejects } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import type { HostTensor } from "../../src/runtime/types.ts";
import { projectionModel } from "../support/models.ts";
import { CRASH, puppets } from "../support/puppets.ts";

const pair = (a: number, b: number): HostTensor => ({ type: "float32", shape: [1, 2], data: new Float32Array([a, b]) });

Deno.test("crash: every pending run of a dead worker is rejected, and its generations run again in a new one", async () => {
  await using engine = await createEngine({ provider: "cpu", startWorker: puppets("crashing") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  await engine.install(2, projectionModel(2, [[1], [-1]]));
  await engine.install(3, projectionModel(2, [[5], [5]]));
  await engine.release(3);
  const doomed = [
    engine.run(1, { x: pair(CRASH, 0) }),
    engine.run(1, { x: pair(1, 2) }),
    engine.run(2, { x: pair(1, 2) }),
  ];
  for (const outcome of await Promise.allSettled(doomed)) {
    assertEquals(outcome.status, "rejected");
    const error = (outcome as PromiseRejectedResult).reason as TuckerdError;
    assertEquals([error.name, error.kind], ["TuckerdError", "failed"]);
    assertEquals(error.message.includes("planted crash"), true, error.message);
  }
  assertEquals([...(await engine.run(1, { x: pair(1, 2) }))["y"]!.data], [3]);
  assertEquals([...(await engine.run(2, { x: pair(1, 2) }))["y"]!.data], [-1]);
  await assertRejects(() => engine.run(3, { x: pair(1, 2) }), TuckerdError, "not installed");
});

Deno.test("crash: a worker that keeps dying is left dead and says so; other structures go on", async () => {
  await using engine = await createEngine({ provider: "cpu", startWorker: puppets("hopeless") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  await engine.install(2, projectionModel(3, [[1], [1], [1]]));
  for (let death = 0; death < 3; death++) {
    await assertRejects(() => engine.run(1, { x: pair(CRASH, 0) }), TuckerdError, "planted crash");
  }
  await assertRejects(() => engine.run(1, { x: pair(1, 2) }), TuckerdError, "is not started again");
  const x: HostTensor = { type: "float32", shape: [1, 3], data: new Float32Array([1, 2, 3]) };
  assertEquals([...(await engine.run(2, { x }))["y"]!.data], [6]);
});

Deno.test("crash: a worker that answers between its deaths is started again, however often it dies", async () => {
  await using engine = await createEngine({ provider: "cpu", startWorker: puppets("mortal") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  for (let death = 0; death < 4; death++) {
    await assertRejects(() => engine.run(1, { x: pair(CRASH, 0) }), TuckerdError, "planted crash");
    assertEquals([...(await engine.run(1, { x: pair(1, 2) }))["y"]!.data], [3]);
  }
});

Deno.test("crash: a worker that dies while its engine is closed is not started again", async () => {
  const start = puppets("closed");
  let started = 0;
  const engine = await createEngine({ provider: "cpu", startWorker: () => (started++, start()) });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const [run] = await Promise.allSettled([engine.run(1, { x: pair(CRASH, 0) }), engine[Symbol.asyncDispose]()]);
  assertEquals([run.status, started], ["rejected", 1]);
});
