/**
 * 16-bit weights that cross the bus as their file stores them: half the bytes of float32 numbers, and no pass over them on the host.
 * The device sums their squares, and puts them into tensors, widened or as float16 storage (`half.ts`), whose bits are those that the host's
 * float32 numbers would have given.
 *
 * Whole stored tensors are uploaded: of packed projections the parts are picked out, and repeated where heads share them, on the device. No
 * feature of the adapter is needed: patterns are integers to the kernels, so subnormal numbers come through whatever its float16 does.
 *
 * @module
 */
import { halfSums, halfTensor } from "../../kernels/mod.ts";
import { GpuArray } from "./array.ts";
import type { GpuDevice } from "./device.ts";
import { ExponentSums, FORMATS, type PatternFormat, SUM_WORDS } from "./exponent_sums.ts";
import { ROUNDING_LIMIT, storedUnit } from "./half.ts";
import type { Pipeline } from "./pipelines.ts";
import { cut, regionLimit, writeRegion } from "./region.ts";

/** A stored tensor: its bytes in pieces, all but the last of a length divisible by 4. */
export interface PatternSource {
  readonly format: PatternFormat;
  /** Numbers, of two bytes each. */
  readonly count: number;
  pieces(): Iterable<Uint8Array<ArrayBuffer>>;
}

/** A rows × columns matrix in a stored tensor; number (i, j) is at index[i]·rowStride + j·columnStride, or i·… + index[j]·…, as `indexed` says. */
export interface PatternMatrix {
  readonly source: PatternSource;
  readonly rows: number;
  readonly columns: number;
  readonly index: Int32Array;
  readonly indexed: "rows" | "columns";
  readonly rowStride: number;
  readonly columnStride: number;
}

/** A matrix that has its place in a tensor, times a factor. */
export interface Placed {
  /** Which of the uploaded matrices. */
  readonly matrix: number;
  readonly factor: number;
}

/** The compiled kernels; `half` and `float` are those of float16 and float32 tensors. */
export interface HalfMatrixKernels {
  readonly sums: Pipeline<ParamOf<typeof halfSums>>;
  readonly half: Pipeline<ParamOf<typeof halfTensor>>;
  readonly float: Pipeline<ParamOf<typeof halfTensor>>;
}

/** Compiles them. */
export async function compileHalfMatrices({ pipelines }: GpuDevice): Promise<HalfMatrixKernels> {
  const [sums, half, float] = await Promise.all([
    pipelines.get(halfSums),
    pipelines.get(halfTensor, { HALF: 1 }),
    pipelines.get(halfTensor, { HALF: 0 }),
  ]);
  return { sums, half, float };
}

type ParamOf<K> = K extends { readonly params: readonly (infer P extends string)[] } ? P : never;

/** Numbers that an invocation sums, where there are enough of them. */
const TERMS = 16;
/** Workgroups that fill a large device. */
const GROUPS = 1024;

/** Matrices of equal sizes on a device. Dispose them to give the memory back. */
export class HalfMatrices implements Disposable {
  readonly #device: GpuDevice;
  readonly #kernels: HalfMatrixKernels;
  readonly #matrices: readonly PatternMatrix[];
  readonly #sources = new Map<PatternSource, GpuArray>();
  /** The matrices' indices, one after the other. */
  readonly #index: GpuArray;
  readonly #indexBases: readonly number[];

  /** Uploads them. They must fit (`whyNotUploaded`), and there must be at least one. */
  constructor(device: GpuDevice, kernels: HalfMatrixKernels, matrices: readonly PatternMatrix[]) {
    this.#device = device;
    this.#kernels = kernels;
    this.#matrices = matrices;
    for (const { source } of matrices) {
      if (!this.#sources.has(source)) this.#sources.set(source, uploaded(device, source));
    }
    let base = 0;
    this.#indexBases = matrices.map(({ index }) => (base += index.length) - index.length);
    this.#index = new GpuArray(device, base, "places of weights");
    const all = new Int32Array(base);
    matrices.forEach(({ index }, i) => all.set(index, this.#indexBases[i]));
    device.commands.upload(this.#index.slice.buffer, all);
  }

  /** Sums of squares of each matrix. */
  async sums(): Promise<ExponentSums[]> {
    using bins = new GpuArray(this.#device, this.#matrices.length * SUM_WORDS, "sums of squares");
    bins.clear();
    for (const index of this.#matrices.keys()) this.#sum(index, bins);
    const words = new Uint32Array((await bins.read()).buffer);
    const of = (index: number): Uint32Array => words.subarray(index * SUM_WORDS, (index + 1) * SUM_WORDS);
    return this.#matrices.map(({ source }, index) => new ExponentSums(source.format, of(index)));
  }

  #sum(matrix: number, bins: GpuArray): void {
    const { source, rows, columns, indexed, rowStride, columnStride } = this.#matrices[matrix]!;
    const alongRows = rowStride === 1;
    const [slow, fast] = alongRows ? [columns, rows] : [rows, columns];
    const [slowStride, fastStride] = alongRows ? [columnStride, rowStride] : [rowStride, columnStride];
    const { fractionBits } = FORMATS[source.format];
    this.#device.commands.dispatch(this.#kernels.sums, {
      slow,
      fast,
      slowStride,
      fastStride,
      indexed: Number((indexed === "rows") !== alongRows),
      indexBase: this.#indexBases[matrix]!,
      fractionBits,
      binBase: matrix * SUM_WORDS,
      groups: Math.min(GROUPS, Math.ceil(slow * fast / (256 * TERMS))),
    }, [this.#sources.get(source)!.slice, this.#index.slice, bins.slice]);
  }

  /**
   * Matrices side by side, row by row: as float16 where that loses nothing that counts, else as float32 with the reason.
   *
   * @param sums of all uploaded matrices
   */
  tensor(
    placed: readonly Placed[],
    sums: readonly ExponentSums[],
  ): { readonly array: GpuArray; readonly refused: string | undefined } {
    const refused = this.#whyNotHalf(placed, sums);
    return { array: refused === undefined ? this.#half(placed) : this.#float(placed), refused };
  }

  #whyNotHalf(placed: readonly Placed[], sums: readonly ExponentSums[]): string | undefined {
    const { bindingBytes, bufferBytes } = this.#device.limits;
    const { rows, columns } = this.#matrices[0]!;
    const bytes = 2 * placed.length * rows * columns;
    if (bytes > Math.min(bindingBytes, bufferBytes)) {
      return `${bytes} bytes exceed a binding, and only float32 numbers are cut`;
    }
    const factor = placed[0]!.factor;
    if (!(storedUnit(factor) > 0) || placed.some((each) => each.factor !== factor)) {
      return "the numbers are no multiples of one factor";
    }
    const total = (of: (each: ExponentSums) => number): number =>
      placed.reduce((sum, { matrix }) => sum + of(sums[matrix]!), 0);
    const rounding = Math.sqrt(total((each) => each.flushed(halfScale(factor))) / total(({ squares }) => squares));
    return rounding > ROUNDING_LIMIT
      ? `float16 would round them by ${rounding.toExponential(1)} of their norm`
      : undefined;
  }

  #half(placed: readonly Placed[]): GpuArray {
    const { rows, columns: width } = this.#matrices[0]!;
    const factor = placed[0]!.factor;
    const array = new GpuArray(this.#device, rows * placed.length * width, "float16 weights", storedUnit(factor));
    placed.forEach(({ matrix }, slot) => {
      this.#place(this.#kernels.half, matrix, array.slice, {
        rows,
        firstRow: 0,
        outBase: slot * width,
        outStride: placed.length * width,
        scale: halfScale(factor) >>> 0,
        factorHigh: 0,
        factorLow: 0,
      });
    });
    return array;
  }

  #float(placed: readonly Placed[]): GpuArray {
    const { rows, columns: width } = this.#matrices[0]!;
    const columns = placed.length * width;
    const array = new GpuArray(this.#device, rows * columns, "weights");
    const box = { array, outer: 1, rows, columns };
    const step = Math.max(1, Math.floor(regionLimit(this.#device.limits) / columns));
    for (const range of cut(rows, step)) {
      const region = { outer: { start: 0, end: 1 }, rows: range, columns: { start: 0, end: columns } };
      writeRegion(box, region, false, ({ slice, base, rowStride: outStride }) => {
        for (const [slot, { matrix, factor }] of placed.entries()) {
          const { high, low, exponent } = float64Parts(factor);
          this.#place(this.#kernels.float, matrix, slice, {
            rows: range.end - range.start,
            firstRow: range.start,
            outBase: base + slot * width,
            outStride,
            scale: exponent >>> 0,
            factorHigh: high,
            factorLow: low,
          });
        }
      });
    }
    return array;
  }

  #place(
    pipeline: HalfMatrixKernels["half"],
    matrix: number,
    out: GpuArray["slice"],
    place: Readonly<
      Record<"rows" | "firstRow" | "outBase" | "outStride" | "scale" | "factorHigh" | "factorLow", number>
    >,
  ): void {
    const { source, columns: width, indexed, rowStride, columnStride } = this.#matrices[matrix]!;
    this.#device.commands.dispatch(pipeline, {
      ...place,
      width,
      rowStride,
      columnStride,
      indexed: Number(indexed === "rows"),
      indexBase: this.#indexBases[matrix]!,
      fractionBits: FORMATS[source.format].fractionBits,
    }, [this.#sources.get(source)!.slice, this.#index.slice, out]);
  }

  [Symbol.dispose](): void {
    for (const array of this.#sources.values()) array[Symbol.dispose]();
    this.#index[Symbol.dispose]();
  }
}

/** Why matrices can't be uploaded as they are stored, or had better not be; undefined if they can. */
export function whyNotUploaded({ limits }: GpuDevice, matrices: readonly PatternMatrix[]): string | undefined {
  const sources = [...new Set(matrices.map(({ source }) => source))];
  const largest = 2 * Math.max(...sources.map(({ count }) => count));
  if (largest > Math.min(limits.bindingBytes, limits.bufferBytes)) return `${largest} bytes exceed a binding`;
  const odd = matrices.find(({ columns }) => columns % 2 === 1);
  if (odd !== undefined) return `rows of ${odd.columns} numbers don't lie in pairs`;
  const stored = 2 * sources.reduce((sum, { count }) => sum + count, 0);
  const float32 = 4 * matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  return stored > float32 ? `the tensors that hold them take ${stored} bytes, they as float32 ${float32}` : undefined;
}

/** The power of two by which stored numbers differ from what is stored as float16: factor = unit · 2^scale but for the last digit. */
function halfScale(factor: number): number {
  return Math.round(Math.log2(factor / storedUnit(factor)));
}

const float64 = new DataView(new ArrayBuffer(8));

/** A number that isn't negative as (2^32 high + low) · 2^exponent with 2^20 ≤ high < 2^21; 0 has both 0. */
function float64Parts(value: number): { readonly high: number; readonly low: number; readonly exponent: number } {
  if (value === 0) return { high: 0, low: 0, exponent: 0 };
  const doublings = value < 2 ** -1022 ? 64 : 0; // subnormal numbers have no leading bit of their own
  float64.setFloat64(0, value * 2 ** doublings);
  const word = float64.getUint32(0);
  return { high: word & 0xfffff | 0x100000, low: float64.getUint32(4), exponent: (word >>> 20) - 1075 - doublings };
}

function uploaded(device: GpuDevice, source: PatternSource): GpuArray {
  const array = new GpuArray(device, Math.ceil(source.count / 2), "weights as they are stored");
  let offset = 0;
  for (const bytes of source.pieces()) {
    device.commands.upload(array.slice.buffer, bytes, offset);
    offset += bytes.length;
  }
  return array;
}
