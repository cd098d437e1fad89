/**
 * One layer's upload runs while the layer before it is being computed: shown by the order of what a device is told.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { ahead } from "../../src/compress/ahead.ts";
import { OpsSource } from "../../src/compress/ops_source.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { gpuOpsOn } from "../../src/tucker/gpu_ops.ts";
import type { LayerDecomposition } from "../../src/tucker/types.ts";
import { options, randomWeights } from "../tucker/layers.ts";
import { skipGpu } from "./adapter.ts";

const SIZES = { hiddenSize: 48, heads: 4, headSize: 16 };
/** Bytes of a layer's tensor: nothing else that is uploaded is as large. */
const LAYER_BYTES = 4 * 4 * 48 * 64;

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
    return await gpuOpsOn(device);
  };
  const layers = [0, 1, 2].map((layer) => randomWeights(SIZES, 30 + layer));
  const given = options({ ranks: [12, 4, 2], sweeps: 2 });
  using source = new OpsSource({ gpu, cpu: createCpuOps, hasGpu: () => true });
  await source.open("webgpu");
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

  events.length = 0;
  for (const layer of [0, 1, 2]) {
    const alone = await decompose(layer);
    assertEquals(overlapped[layer]!.factors, alone.factors, "the numbers don't depend on what runs beside them");
    assertEquals(overlapped[layer]!.relativeError, alone.relativeError);
  }
});
