/** Transfers that break, come damaged or meet a full disk. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { cutAfter, sha256 } from "../support/hub.ts";
import { bertQa, bytes, HubBench } from "../support/hub_cache.ts";

const graph = bertQa["onnx/model.onnx"]!;
const half = graph.length >> 1;

/** A bench with the model, and only its graph missing. */
async function benchWithGraphMissing(): Promise<HubBench> {
  const bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const { graphPath } = await bench.fetch("hf:test/bert-qa");
  await Deno.remove(graphPath);
  await Deno.remove(blobOf(bench));
  bench.hub.takeContentRequests();
  return bench;
}

function blobOf(bench: HubBench): string {
  return `${bench.cacheFolder}/models--test--bert-qa/blobs/${sha256(graph)}`;
}

/** Whether a path is the graph's on the content server. */
function isGraph(path: string): boolean {
  return path === `/${sha256(graph)}`;
}

async function fetchedGraph(bench: HubBench): Promise<Uint8Array> {
  return await Deno.readFile((await bench.fetch("hf:test/bert-qa")).graphPath);
}

async function failing(work: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => work, TuckerdError);
  assertEquals(error.kind, "failed", error.message);
  return error.message;
}

Deno.test("a transfer that breaks goes on at the byte where it broke", async () => {
  await using bench = await benchWithGraphMissing();
  let cuts = 0;
  bench.hub.intercept = (_, path) => isGraph(path) && cuts++ === 0 ? cutAfter(half, graph) : undefined;
  assertEquals(await fetchedGraph(bench), graph);
  assertEquals(bench.hub.takeContentRequests(), ["onnx/model.onnx", `onnx/model.onnx bytes=${half}-`]);
  assertEquals(bench.pauses, [500]);
});

Deno.test("a transfer that ends early without an error goes on as well", async () => {
  await using bench = await benchWithGraphMissing();
  let cuts = 0;
  bench.hub.intercept = (_, path) => isGraph(path) && cuts++ === 0 ? new Response(graph.slice(0, half)) : undefined;
  assertEquals(await fetchedGraph(bench), graph);
  assertEquals(bench.hub.takeContentRequests(), ["onnx/model.onnx", `onnx/model.onnx bytes=${half}-`]);
});

Deno.test("a transfer that keeps breaking fails after five attempts; the next start goes on from what came", async () => {
  await using bench = await benchWithGraphMissing();
  bench.hub.intercept = (request, path) => {
    if (!isGraph(path)) return undefined;
    if (request.headers.has("range")) return cutAfter(0, graph.slice(half), partOfGraph(half));
    return cutAfter(half, graph);
  };
  const message = await failing(bench.fetch("hf:test/bert-qa"));
  assertStringIncludes(message, "broke off 5 times");
  assertStringIncludes(message, "the next start goes on");
  assertEquals(bench.pauses, [500, 1000, 2000, 4000]);
  assertEquals((await Deno.stat(`${blobOf(bench)}.incomplete`)).size, half);
  bench.hub.intercept = () => undefined;
  bench.hub.takeContentRequests();
  assertEquals(await fetchedGraph(bench), graph);
  assertEquals(bench.hub.takeContentRequests(), [`onnx/model.onnx bytes=${half}-`]);
});

Deno.test("a server that knows no ranges is asked again from the start", async () => {
  await using bench = await benchWithGraphMissing();
  await Deno.writeFile(`${blobOf(bench)}.incomplete`, graph.slice(0, half));
  bench.hub.intercept = (_, path) => isGraph(path) ? new Response(graph) : undefined;
  assertEquals(await fetchedGraph(bench), graph);
});

Deno.test("a part that isn't of this file, or is longer than it, is fetched whole", async () => {
  for (const length of [half, graph.length, graph.length + 1]) {
    await using bench = await benchWithGraphMissing();
    await Deno.writeFile(`${blobOf(bench)}.incomplete`, new Uint8Array(length));
    assertEquals(await fetchedGraph(bench), graph, `a part of ${length} bytes`);
  }
});

Deno.test("damaged content is refused and not kept", async () => {
  await using bench = await benchWithGraphMissing();
  const flipped = graph.slice();
  flipped[half]! ^= 1;
  bench.hub.intercept = (_, path) => isGraph(path) ? new Response(flipped) : undefined;
  const message = await failing(bench.fetch("hf:test/bert-qa"));
  assertStringIncludes(message, "onnx/model.onnx of hf:test/bert-qa@main came damaged");
  assertStringIncludes(message, sha256(graph));
  const left = [...Deno.readDirSync(blobOf(bench).replace(/[^/]+$/, ""))].map(({ name }) => name);
  assertEquals(left.filter((name) => name.startsWith(sha256(graph))), []);
});

Deno.test("a small file is checked by its git hash", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  bench.hub.intercept = (_, path) =>
    path.endsWith("/vocab.txt") ? new Response(bertQa["vocab.txt"]!.toReversed()) : undefined;
  assertStringIncludes(await failing(bench.fetch("hf:test/bert-qa")), "vocab.txt of hf:test/bert-qa@main came damaged");
});

Deno.test("no more is written than the hub lists", async () => {
  await using bench = await benchWithGraphMissing();
  const longer = new Uint8Array(2 * graph.length);
  longer.set(graph);
  bench.hub.intercept = (_, path) => isGraph(path) ? new Response(longer) : undefined;
  assertStringIncludes(await failing(bench.fetch("hf:test/bert-qa")), "more came than");
  assert((await Deno.stat(`${blobOf(bench)}.incomplete`)).size <= graph.length);
});

Deno.test("a full disk is said, with what to do", async () => {
  await using bench = await benchWithGraphMissing();
  await Deno.symlink("/dev/full", `${blobOf(bench)}.incomplete`);
  const message = await failing(bench.fetch("hf:test/bert-qa"));
  assertStringIncludes(message, "No space left");
  assertStringIncludes(message, "free space on that disk");
  assertStringIncludes(message, "HF_HOME");
});

Deno.test("an empty file is a file", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", { ...bertQa, "merges.txt": bytes("") });
  const { graphPath } = await bench.fetch("hf:test/bert-qa");
  assertEquals((await Deno.stat(graphPath.replace("onnx/model.onnx", "merges.txt"))).size, 0);
  assert(!bench.hub.takeContentRequests().includes("merges.txt"));
});

function partOfGraph(from: number): ResponseInit {
  return { status: 206, headers: { "content-range": `bytes ${from}-${graph.length - 1}/${graph.length}` } };
}
