/**
 * The inference worker on strings, for tests of what happens when it is slow or dies. A run whose first number is `CRASH`
 * kills it; one that is `HOLD`, and every `load` of a worker whose name begins with "held-", waits until `letGo` speaks to the
 * `BroadcastChannel` of the worker's name: "waiting" (the worker holds something), "go", "gone".
 *
 * @module
 */
import "../../src/runtime/worker.ts";
import type { WorkerRequest } from "../../src/runtime/protocol.ts";

const CRASH = 666;
const HOLD = 777;

const scope = self as unknown as { readonly name: string; onmessage: (event: MessageEvent<WorkerRequest>) => void };
const handle = scope.onmessage;
const channel = new BroadcastChannel(scope.name);
const go = Promise.withResolvers<void>();
channel.onmessage = ({ data }) => {
  if (data !== "go") return;
  go.resolve();
  channel.postMessage("gone");
};
let dead = false;

scope.onmessage = async (event) => {
  const { data } = event;
  const first = data.call === "run" ? data.request.inputs["x"]?.data[0] : undefined;
  if (first === CRASH) {
    dead = true;
    setTimeout(() => {
      throw new Error("planted crash");
    });
  }
  if (dead) return;
  if (first === HOLD || data.call === "load" && scope.name.startsWith("held-")) {
    channel.postMessage("waiting");
    await go.promise;
  }
  if (data.call === "close") channel.close();
  handle(event);
};
