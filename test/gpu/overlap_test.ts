/**
 * One layer's upload runs while the layer before it is being computed: shown by the order of what a device is told.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { type AttentionWeights, type HalfMatrix, MATRICES, type MatrixName } from "../../src/attention/types.ts";
import { ahead } from "../../src/compress/ahead.ts";
import { OpsSource } from "../../src/compress/ops_source.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { float32ToFloat16 } from "../../src/onnx/float16.ts";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { gpuOpsOn } from "../../src/tucker/gpu_ops.ts";
import type { LayerDecomposition } from "../../src/tucker/types.ts";
import { options, randomWeights } from "../tucker/layers.ts";
import { skipGpu } from "./adapter.ts";

const SIZES = { hiddenSize: 48, heads: 4, headSize: 16 };
/** Bytes of a layer's tensor: nothing else that is uploaded is as large. */
const LAYER_BYTES = 4 * 4 * 48 * 64;

/** The layer as a file may store it: one packed tensor of 16-bit numbers, as many bytes as one of half as many in float32. */
function stored(weights: AttentionWeights): AttentionWeights {
  const [d, width] = [weights.hiddenSize, weights.heads * weights.headSize];
  const patterns = new Uint16Array(2 * 4 * d * width);
  MATRICES.forEach((name, slot) => patterns.set(float32ToFloat16(weights[name]), slot * d * width));
  const source = {
    format: "float16",
    count: patterns.length,
    pieces: () => [new Uint8Array(patterns.buffer)],
  } as const;
  const halves = (name: MatrixName): HalfMatrix => {
    const [rows, columns] = name === "output" ? [width, d] : [d, width];
    const index = Int32Array.from({ length: rows }, (_, i) => i + MATRICES.indexOf(name) * d * width / columns);
    return { source, rows, columns, index, indexed: "rows", rowStride: columns, columnStride: 1 };
  };
  return { ...weights, halves };
}

/** Writes down uploads of whole layers, submissions of kernels, and waits, as they are asked of the device. */
function record(device: GpuDevice, events: string[]): void {
  const { commands, readback } = device;
  const upload = commands.upload.bind(commands);
  let layers = 0;
  commands.upload = (buffer, data) => {
    upload(buffer, data);
    if (data.byteLength === LAYER_BYTES) events.push(`upload of layer ${layers++}`);
  };
  const flush = commands.flush.bind(commands);
  commands.flush = () => {
    const label = commands.lastLabel;
    flush();
    if (label === "copy") events.push("kernels and a copy are submitted");
  };
  const withMapped = readback.withMapped.bind(readback);
  readback.withMapped = (...args) => {
    events.push("wait");
    return withMapped(...args);
  };
}

Deno.test({ name: "a layer is uploaded while the one before it is computed", ignore: skipGpu }, async () => {
  const events: string[] = [];
  const gpu = async () => {
    const device = await openDevice({ allowFallbackAdapter: true });
    record(device, events);
    return await gpuOpsOn(device, { float16From: 4 * 48 * 64 });
  };
  const layers = [0, 1, 2].map((layer) => randomWeights(SIZES, 30 + layer));
  const given = options({ ranks: [12, 4, 2], sweeps: 2 });
  const noTrial = (): Promise<number> => Promise.reject(new Error("the user chose"));
  using source = new OpsSource({ gpu, cpu: createCpuOps, hasGpu: () => true, trial: noTrial });
  await source.open("webgpu", [SIZES.hiddenSize, 4 * SIZES.heads * SIZES.headSize]);
  const decompose = async (layer: number, next?: () => void): Promise<LayerDecomposition> => {
    const work = source.use((ops) => decomposeLayer(layers[layer]!, { ...given, onUploaded: next }, ops));
    const { value } = await work;
    events.push(`layer ${layer} is done`);
    return value;
  };

  const overlapped: LayerDecomposition[] = [];
  for await (const result of ahead([0, 1, 2], decompose)) overlapped.push(result);
  const at = (event: string): number => {
    const index = events.indexOf(event);
    assert(index >= 0, `no "${event}" in ${events.join(", ")}`);
    return index;
  };
  // layer 0's first kernels are with the device; before anyone waits for them, layer 1 is written to it
  const submitted = at("kernels and a copy are submitted"), waited = at("wait");
  assert(at("upload of layer 0") < submitted && submitted < at("upload of layer 1"), events.join(", "));
  assert(at("upload of layer 1") < waited, events.join(", "));
  for (const layer of [0, 1]) {
    assert(at(`upload of layer ${layer + 1}`) < at(`layer ${layer} is done`), events.join(", "));
  }
  assert(at("layer 0 is done") < at("upload of layer 2"), "weights of two layers at most");

  await source.use((ops) => decomposeLayer(stored(layers[2]!), given, ops)); // compiles what 16-bit weights need
  events.length = 0;
  layers.splice(0, 3, ...layers.map(stored));
  for await (const _ of ahead([0, 1, 2], decompose));
  const waits = events.flatMap((event, index) => event === "wait" ? [index] : []);
  // layer 0 is waited for once, for the sums of its squares; before the next wait layer 1 is on its way
  const [first, second] = events.flatMap((event, index) => event.startsWith("upload of layer") ? [index] : []);
  assert(first! < waits[0]! && waits[0]! < second! && second! < waits[1]!, `16-bit weights: ${events.join(", ")}`);

  events.length = 0;
  layers.splice(0, 3, ...[0, 1, 2].map((layer) => randomWeights(SIZES, 30 + layer)));
  for (const layer of [0, 1, 2]) {
    const alone = await decompose(layer);
    assertEquals(overlapped[layer]!.factors, alone.factors, "the numbers don't depend on what runs beside them");
    assertEquals(overlapped[layer]!.relativeError, alone.relativeError);
  }
});
