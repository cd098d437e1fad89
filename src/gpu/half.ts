/**
 * Float16 storage: half the memory, and half of what a memory-bound kernel reads. Products still accumulate in float32.
 *
 * **When.** Numbers are stored as float16 only where that changes nothing that matters. Let ε = ‖E‖ / ‖W‖ for the rounding E of
 * a tensor W. A projection P that is the best for W + E is at most 2 ‖E‖ worse for W than W's own best one,
 *
 *     ‖W − PW‖ ≤ ‖(W + E) − P(W + E)‖ + ‖E‖ ≤ ‖W − P*W‖ + 2 ‖E‖,
 *
 * and a core computed from W + E adds at most another ‖E‖. With ε ≤ {@linkcode ROUNDING_LIMIT} a relative error therefore
 * grows by less than 1e-4, whatever the weights; it is measured on the host against the original weights in any case.
 *
 * Weights of float16 and bfloat16 models pass: they are float16 numbers times the factor that normalises them (bfloat16's
 * fractions are shorter, and what lies outside float16's exponents counts for nothing), so ε is that of float32. Weights with
 * 24-bit fractions don't: rounding them gives ε = 2e-4. They stay float32, and a sample tells before anything is uploaded.
 *
 * **How.** Two binary16 numbers in each u32, unpacked by core WGSL: no feature of the adapter is needed. The device rounds
 * and measures, piece by piece; on the host a pass over the numbers costs more than the bytes that it would save on the bus.
 *
 * @module
 */
import { narrowHalf } from "../../kernels/mod.ts";
import { GpuArray } from "./array.ts";
import type { GpuDevice } from "./device.ts";
import { float32Bits } from "./operand.ts";
import type { Pipeline } from "./pipelines.ts";
import { cut } from "./region.ts";

/** Largest ‖rounding‖ / ‖numbers‖ at which float16 storage is used: a third of 1e-4. */
export const ROUNDING_LIMIT = 1e-4 / 3;

/** Numbers that the device narrows at a time. */
const PIECE = 2 ** 23;
/** Workgroups that narrow a piece. */
const GROUPS = 256;
/** Numbers that are looked at before anything is uploaded. */
const SAMPLE = 4096;
/** Largest relative distance from a float16 number that float32 roundings of the factor explain. */
const EXPLAINED = 2 ** -20;

/** Numbers on a device as float16, or why they had better not be. */
export type Narrowed = { readonly array: GpuArray; readonly rounding: number } | { readonly refused: string };

/** The compiled kernel that narrows. */
export type NarrowPipeline = Pipeline<typeof narrowHalf extends { readonly params: readonly (infer P)[] } ? P : never>;

/**
 * Stores numbers of magnitude at most 1 as float16 where that loses nothing.
 *
 * @param unit a factor by which float16 numbers were multiplied to give these
 * @param pipeline asked for where the numbers pass a look; what is compiled already is given as it is, so that the upload begins at once
 */
export async function narrow(
  device: GpuDevice,
  data: Float32Array,
  { unit, pipeline }: { readonly unit: number; readonly pipeline: () => NarrowPipeline | Promise<NarrowPipeline> },
): Promise<Narrowed> {
  const refused = whyNotNarrowed(device, data, unit);
  if (refused !== undefined) return { refused };
  const compiled = pipeline();
  const kernel = compiled instanceof Promise ? await compiled : compiled;
  const array = new GpuArray(device, data.length, "float16 numbers", storedUnit(unit));
  let kept = false;
  try {
    const rounding = await fill(array, data, kernel);
    kept = rounding <= ROUNDING_LIMIT;
    if (kept) return { array, rounding };
    return { refused: `float16 would round them by ${rounding.toExponential(1)} of their norm` };
  } finally {
    if (!kept) array[Symbol.dispose]();
  }
}

/** Why a look at the numbers says that they are no float16 numbers times a factor, or don't fit; undefined where it needs a measurement. */
export function whyNotNarrowed({ limits }: GpuDevice, data: Float32Array, unit: number): string | undefined {
  const bytes = data.length * Uint16Array.BYTES_PER_ELEMENT;
  if (bytes > Math.min(limits.bindingBytes, limits.bufferBytes)) {
    return `${bytes} bytes exceed a binding, and only float32 numbers are cut`;
  }
  const scale = storedUnit(unit);
  if (!(scale > 0)) return "the numbers are no multiples of one factor";
  return sampleFits(data, scale) ? undefined : "the numbers have more digits than float16";
}

/**
 * The unit times the power of two that puts magnitudes up to 1 just within float16's range, so that as much as possible
 * stays above its smallest normal number: a float32 number in 2⁻¹⁵ [1, 2). 0 if the unit isn't a number above 0.
 */
export function storedUnit(unit: number): number {
  if (!(unit > 0 && Number.isFinite(unit))) return 0;
  let mantissa = unit;
  while (mantissa >= 2) mantissa /= 2;
  while (mantissa < 1) mantissa *= 2;
  return Math.fround(mantissa) * 2 ** -15;
}

/** Are numbers here and there float16 numbers times the unit? */
function sampleFits(data: Float32Array, unit: number): boolean {
  const step = Math.max(1, Math.floor(data.length / SAMPLE));
  for (let i = 0; i < data.length; i += step) {
    const number = Math.abs(data[i]! / unit);
    if (number < 2 ** -14) continue; // below the normal numbers: what it loses is measured
    const digit = 2 ** (Math.floor(Math.log2(number)) - 10);
    if (Math.abs(number - Math.round(number / digit) * digit) > EXPLAINED * number) return false;
  }
  return true;
}

/** Uploads and narrows; gives the relative rounding. */
async function fill(array: GpuArray, data: Float32Array, pipeline: NarrowPipeline): Promise<number> {
  const { device, unit } = array;
  const pieces = [...cut(data.length, Math.min(PIECE, Math.floor(device.limits.bufferBytes / 1024) * 256))];
  const partials = pieces.map(({ start, end }) => {
    using source = GpuArray.from(device, data.subarray(start, end), "numbers to be narrowed");
    const groups = Math.min(GROUPS, Math.ceil((end - start) / 512));
    const partial = new GpuArray(device, 2 * groups, "sums of squared roundings");
    device.commands.dispatch(pipeline, {
      count: end - start,
      first: start / 2,
      unit: float32Bits(unit),
      inverse: float32Bits(1 / unit),
      groups,
    }, [source.slice, array.slice, partial.slice]);
    return partial;
  });
  try {
    const sums = await Promise.all(partials.map((partial) => partial.read()));
    let error = 0, norm = 0;
    for (const part of sums) {
      for (let i = 0; i < part.length; i += 2) {
        error += part[i]!;
        norm += part[i + 1]!;
      }
    }
    return norm === 0 ? 0 : Math.sqrt(error / norm);
  } finally {
    for (const partial of partials) partial[Symbol.dispose]();
  }
}
