/** `compress --cache`: a decoder that keeps r2 numbers per head, or the latent z, said in the report and true of the file. */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import type { CacheLayout, CompressionReport } from "../../src/compress/artifact.ts";
import { type CompressionRequest, resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { TuckerdError } from "../../src/errors.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { assertNear } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { temporaryFolder } from "../support/folder.ts";
import { caseInputs, oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

function decoder(model: string): string {
  return oracleExports(model).find(({ file }) => file === "onnx-past/model.onnx")!.path;
}

Deno.test("the cache holds r2 numbers per head, and the outputs are those with a full one", async () => {
  // 3 layers of 3 heads of 12: 2·36 numbers a token and layer; at r2 = 4 a third of that. RoPE keeps llama's keys whole.
  const cases = [
    { model: "gpt2", before: 4 * 3 * 72, after: 4 * 3 * 24, ranks: [24, 4, 3] as const },
    { model: "llama", before: 4 * 2 * 96, after: 4 * 2 * (48 + 16), ranks: [24, 4, 3] as const },
  ];
  for (const { model, before, after, ranks } of cases) {
    await using opened = await openTestCompressor(decoder(model));
    await using folder = await temporaryFolder();
    const out = folder.path;
    const outputs = [];
    for (const cache of ["full", "per-head"] as const) {
      const options = { out: `${out}/${cache}`, execution: "factored", cache } as const;
      const { totals } = await writeModelFolder(opened.compressor, resolveOptions({ ranks }), options);
      assertEquals(totals.kvBytesPerToken, { before, after: cache === "full" ? before : after }, `${model} ${cache}`);
      await using session = await TestSession.load({ path: `${out}/${cache}/onnx/model.onnx` });
      const { inputs } = oracleReference(model).cases.find(({ name }) => name === "single")!;
      const result = await session.run(inputs);
      outputs.push(result["logits"]!.data);
      // What the model hands to the next call is as large as the report says.
      const tokens = (inputs["input_ids"] as readonly (readonly number[])[])[0]!.length;
      const cached = Object.entries(result).filter(([name]) => name.startsWith("present."))
        .reduce((sum, [, { data }]) => sum + data.length, 0);
      assertEquals(4 * cached / tokens, totals.kvBytesPerToken.after, `${model} ${cache}`);
    }
    assertNear(outputs[1]!, outputs[0]!, { atol: 1e-4, rtol: 1e-4, what: model });
  }
});

/** How a layer of three heads of 12 is kept at r1 = 9, r2 = 6. */
const LATENT = { kind: "latent", heads: 1, size: 9 } as const;
const whole = { kind: "full", heads: 3, size: 12 } as const;
const BOTH = { key: LATENT, value: { ...LATENT, size: 0 } } as const;

/** The same with the cosines and sines of a position beside z, for all layers. */
function withRotation(count: number): CacheLayout {
  return { ...BOTH, key: { ...LATENT, size: 9 + count, rotation: count } };
}

Deno.test("a compressed cache holds z where that is smaller, and clients find its shapes in the file", async () => {
  // 9 < 2·3·6 numbers; for rotated keys 9 < 4·12 + 4·6 in each layer, and the first keeps 12 coefficients. fp16 in the file, float32 outside.
  const cases = [
    {
      model: "gpt2",
      path: decoder("gpt2"),
      caches: [BOTH, BOTH, BOTH],
      before: 4 * 3 * 72,
      after: 4 * 3 * 9,
    },
    {
      model: "llama",
      path: decoder("llama"),
      caches: [withRotation(12), BOTH],
      before: 4 * 2 * 96,
      after: 4 * (2 * 9 + 12),
    },
    {
      model: "llama-gqa",
      path: oracleFormats().find(({ file, model }) => model === "llama-gqa" && file.startsWith("fp16/"))!.path,
      caches: [withRotation(8), BOTH],
      before: 2 * 2 * 32,
      after: 2 * (2 * 9 + 8),
    },
  ];
  for (const { model, path, caches, before, after } of cases) {
    await using opened = await openTestCompressor(path);
    await using folder = await temporaryFolder();
    const out = `${folder.path}/out`;
    const ranks = [9, 6, 4] as const;
    const options = { out, execution: "factored", cache: "compressed" } as const;
    const { totals, layers } = await writeModelFolder(opened.compressor, resolveOptions({ ranks }), options);
    assertEquals(totals.kvBytesPerToken, { before, after }, model);
    assertEquals(layers.map(({ cache }) => cache), caches, model);
    const report = JSON.parse(await Deno.readTextFile(`${out}/tuckerd.json`)) as CompressionReport;
    assertEquals(report.layers.map(({ cache }) => cache), caches, model);
    await using session = await TestSession.load({ path: `${out}/onnx/model.onnx` });
    const outputs = await session.run(caseInputs(oracleReference(model), "single"));
    for (const [layer, cache] of caches.entries()) {
      for (const part of ["key", "value"] as const) {
        const { heads, size } = cache[part];
        const [, h, , s] = session.inputShapes[`past_key_values.${layer}.${part}`]!;
        assertEquals([h, s], [heads, size], `${model} ${layer} ${part}`);
        assertEquals(outputs[`present.${layer}.${part}`]!.shape, [1, heads, 11, size], `${model} ${layer} ${part}`);
      }
    }
  }
});

Deno.test("rotated keys are made from z only where that is smaller with the coefficients of their rotation", async () => {
  await using opened = await openTestCompressor(decoder("llama"));
  const keysAt = async (ranks: Ranks, layers: string) => {
    await using folder = await temporaryFolder();
    const options = { out: `${folder.path}/out`, execution: "factored", cache: "compressed" } as const;
    const report = await writeModelFolder(opened.compressor, resolveOptions({ ranks, layers }), options);
    return report.layers.map(({ cache }) => [cache!.key.kind, cache!.value.kind]);
  };
  // Keys of 48 numbers and values of 4·1 against z of r1 and 12 coefficients: 52 to r1 + 12 for one layer, 104 to 2·r1 + 12 for two.
  assertEquals(await keysAt([39, 1, 4], "1"), [["full", "full"], ["latent", "latent"]]);
  assertEquals(await keysAt([40, 1, 4], "1"), [["full", "full"], ["full", "per-head"]]);
  assertEquals(await keysAt([45, 1, 4], "all"), [["latent", "latent"], ["latent", "latent"]]);
  assertEquals(await keysAt([46, 1, 4], "all"), [["full", "per-head"], ["full", "per-head"]]);
});

Deno.test("an operator that rotates its keys inside keeps z, of normed keys too", async () => {
  // 2 layers of 2 groups of 16.
  const [key, value] = [{ kind: "full", heads: 2, size: 16 }, { kind: "per-head", heads: 2, size: 6 }] as const;
  const z = (size: number) => ({ kind: "latent", heads: 1, size }) as const;
  const cases = [
    { model: "llama-16", cache: "compressed", r1: 32, expected: { key: z(32), value: z(0) } },
    { model: "llama-16", cache: "per-head", r1: 9, expected: { key, value } },
    { model: "qwen3-16", cache: "compressed", r1: 12, expected: { key: z(12), value: z(0) } },
    { model: "qwen3-16", cache: "per-head", r1: 12, expected: { key, value } },
  ] as const;
  for (const { model, cache, r1, expected } of cases) {
    for (const file of model === "llama-16" ? ["group_query", "group_query_packed"] : ["group_query"]) {
      const path = new URL(`../testdata/fused/${model}/${file}.onnx`, import.meta.url).pathname;
      await using opened = await openTestCompressor(path);
      await using folder = await temporaryFolder();
      const out = `${folder.path}/out`;
      const { totals, layers } = await writeModelFolder(
        opened.compressor,
        resolveOptions({ ranks: [r1, 6, 4] }),
        { out, execution: "factored", cache },
      );
      const parts = [expected.key, expected.value];
      const after = 4 * 2 * parts.reduce((sum, { heads, size }) => sum + heads * size, 0);
      const what = `${model}/${file} ${cache} ${r1}`;
      assertEquals(totals.kvBytesPerToken, { before: 4 * 2 * 2 * (16 + 16), after }, what);
      assertEquals(layers.map((layer) => layer.cache), [expected, expected], what);
      await using session = await TestSession.load({ path: `${out}/onnx/${file}.onnx` });
      const outputs = await session.run(caseInputs(oracleReference(model), "single"));
      const shapes = ["key", "value"].map((part) => {
        const [, heads, , size] = session.inputShapes[`past_key_values.0.${part}`]!;
        return [[heads, size], outputs[`present.0.${part}`]!.shape.filter((_, axis) => axis % 2 === 1)];
      });
      assertEquals(shapes, parts.map(({ heads, size }) => [[heads, size], [heads, size]]), what);
    }
  }
});

Deno.test("matrices decomposed alone have a z each, and layers choose one by one", async () => {
  await using opened = await openTestCompressor(decoder("gpt2"));
  const layersAt = async (request: CompressionRequest) => {
    await using folder = await temporaryFolder();
    const out = `${folder.path}/out`;
    const options = { out, execution: "factored", cache: "compressed" } as const;
    const { layers } = await writeModelFolder(opened.compressor, resolveOptions(request), options);
    return layers.map(({ cache }) => [cache?.key, cache?.value]);
  };
  assertEquals(await layersAt({ mode: "3d-tucker", ranks: [9, 6, 4], layers: "1" }), [
    [whole, whole],
    [LATENT, LATENT],
    [whole, whole],
  ]);
  const perHead = { kind: "per-head", heads: 3, size: 4 } as const;
  assertEquals(await layersAt({ ranks: [9, 6, 4], overrides: { "1": { ranks: [24, 4, 4] }, "2": { skip: true } } }), [
    [LATENT, { ...LATENT, size: 0 }],
    [perHead, perHead],
    [whole, whole],
  ]);
});

Deno.test("of keys that LASER truncates a compressed cache holds the rank's numbers", async () => {
  await using opened = await openTestCompressor(decoder("gpt2"));
  await using folder = await temporaryFolder();
  const request = resolveOptions({ mode: "laser", laser: { rate: 6, matrices: ["key"] } });
  const outputs = [];
  for (const cache of ["full", "compressed"] as const) {
    const out = `${folder.path}/${cache}`;
    const { layers } = await writeModelFolder(opened.compressor, request, { out, execution: "factored", cache });
    const key = cache === "full" ? whole : { kind: "latent", heads: 1, size: layers[0]!.matrixRanks!.k };
    assertEquals(layers.map(({ cache }) => cache), layers.map(() => ({ key, value: whole })));
    await using session = await TestSession.load({ path: `${out}/onnx/model.onnx` });
    outputs.push((await session.run(caseInputs(oracleReference("gpt2"), "single")))["logits"]!.data);
  }
  assertNear(outputs[1]!, outputs[0]!, { atol: 1e-4, rtol: 0, what: "logits" });
});

Deno.test("stack ranks below 4 make grouped keys and values one per head, and the report says so", async () => {
  await using opened = await openTestCompressor(decoder("llama-gqa"));
  const full = 4 * 2 * 2 * 2 * 8; // 2 layers, keys and values, 2 groups of 8
  for (const [r3, factor] of [[4, 1], [3, 3]] as const) {
    const { report } = await opened.compressor.compress(resolveOptions({ ranks: [24, 4, r3] }));
    assertEquals(report.totals.kvBytesPerToken, { before: full, after: factor * full }, `r3 ${r3}`);
  }
});

Deno.test("a compressed cache that can't be, or that saves nothing, is refused", async () => {
  const refused: [string, CompressionRequest, "factored" | "dense", string][] = [
    [oracleExports("bert")[0]!.path, { ranks: [16, 4, 4] }, "factored", "no key-value cache"],
    [decoder("gpt2"), { ranks: [16, 4, 4] }, "dense", "--execution dense"],
    [decoder("gpt2"), { mode: "laser", laser: { rate: 6, matrices: ["query", "value"] } }, "factored", "864 bytes"],
  ];
  for (const [path, request, execution, text] of refused) {
    await using opened = await openTestCompressor(path);
    await using folder = await temporaryFolder();
    const out = `${folder.path}/out`;
    const write = () =>
      writeModelFolder(opened.compressor, resolveOptions(request), { out, execution, cache: "compressed" });
    await assertRejects(write, TuckerdError, text);
    assert(await Deno.stat(out).then(() => false, () => true), "something was written");
  }
});
