/**
 * The tensor operations on WebGPU. Operations are recorded and run in order; errors surface at the next read or Gram matrix.
 *
 * @module
 */
import { gramSmall, gramSmallHalf, narrowHalf } from "../../kernels/mod.ts";
import type { HalfMatrix } from "../attention/types.ts";
import { GpuArray } from "../gpu/array.ts";
import { matrixProduct, modeProduct } from "../gpu/box_product.ts";
import { type DeviceOptions, type GpuDevice, openDevice } from "../gpu/device.ts";
import { gram, type GramKernels } from "../gpu/gram.ts";
import { narrow, type NarrowPipeline, whyNotNarrowed } from "../gpu/half.ts";
import { compileHalfMatrices, HalfMatrices, type HalfMatrixKernels, whyNotUploaded } from "../gpu/half_matrices.ts";
import { ProductPlanner } from "../gpu/product.ts";
import type { Box3 } from "../gpu/region.ts";
import { log } from "../log.ts";
import { release } from "../release.ts";
import type { HalfWeights, OpsTensor, TuckerOps } from "./ops.ts";

/** Options of {@linkcode createGpuOps}. */
export interface GpuOpsOptions extends DeviceOptions {
  /** Weights of at least so many numbers are stored as float16 where that loses nothing (see `half.ts`); Infinity: never. */
  readonly float16From?: number;
}

/** Below 4 MiB a pass over the numbers takes less than the wait that tells whether float16 will do. */
const FLOAT16_FROM = 2 ** 20;

/**
 * Opens a GPU and compiles its kernels.
 *
 * @throws TuckerdError `unavailable` if there is no adapter, or only a software one and `allowFallbackAdapter` isn't set
 */
export async function createGpuOps(options: GpuOpsOptions = {}): Promise<TuckerOps> {
  return await gpuOpsOn(await openDevice(options), options);
}

/** The operations on an open device, which is theirs from then on. */
export async function gpuOpsOn(
  device: GpuDevice,
  options: Pick<GpuOpsOptions, "float16From"> = {},
): Promise<TuckerOps> {
  try {
    const [planner, small] = await Promise.all([ProductPlanner.create(device), device.pipelines.get(gramSmall)]);
    return new GpuOps(device, { planner, small }, options.float16From ?? FLOAT16_FROM);
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
}

/** A device array under a shape; reshaped tensors share the array of the one that they come from. */
class GpuTensor implements OpsTensor {
  constructor(readonly array: GpuArray, readonly shape: readonly number[], readonly owner: boolean) {}

  [Symbol.dispose](): void {
    if (this.owner) this.array[Symbol.dispose]();
  }
}

interface Kernels extends GramKernels {
  smallHalf?: GramKernels["smallHalf"];
  /** Compiled when weights come that they serve. */
  narrowing?: NarrowPipeline;
  matrices?: HalfMatrixKernels;
}

class GpuOps implements TuckerOps {
  readonly backend = "webgpu";
  readonly #device: GpuDevice;
  readonly #float16From: number;
  readonly #owner: boolean;
  /** What is compiled, the same for all views. */
  readonly #kernels: Kernels;
  /** How the latest weights are stored. */
  #storage: "float32" | "float16" = "float32";

  constructor(device: GpuDevice, kernels: Kernels, float16From: number, owner = true) {
    this.#device = device;
    this.#kernels = kernels;
    this.#float16From = float16From;
    this.#owner = owner;
  }

  view(): TuckerOps {
    return new GpuOps(this.#device, this.#kernels, this.#float16From, false);
  }

  get adapter(): string {
    return this.#storage === "float32" ? this.#device.adapter : `${this.#device.adapter}, weights stored as float16`;
  }

  tensor(data: Float32Array, shape: readonly number[]): OpsTensor {
    checkSize("tensor", data.length, shape);
    return new GpuTensor(GpuArray.from(this.#device, data, `tensor [${shape}]`), [...shape], true);
  }

  adopt(data: Float32Array, shape: readonly number[]): OpsTensor {
    const tensor = this.tensor(data, shape);
    release(data);
    return tensor;
  }

  async weights(data: Float32Array, shape: readonly number[], unit: number): Promise<OpsTensor> {
    checkSize("weights", data.length, shape);
    this.#storage = "float32";
    if (data.length < this.#float16From) return this.tensor(data, shape);
    // Before anything is waited for: an upload begins while the device has work.
    const refused = whyNotNarrowed(this.#device, data, unit);
    const pipeline = () => this.#kernels.narrowing ?? this.#prepareNarrowing();
    const narrowed = refused === undefined ? await narrow(this.#device, data, { unit, pipeline }) : { refused };
    if ("refused" in narrowed) {
      log(1, `weights [${shape}] are stored as float32: ${narrowed.refused}`);
      return this.tensor(data, shape);
    }
    log(1, `weights [${shape}] are stored as float16, rounded by ${narrowed.rounding.toExponential(1)} of their norm`);
    this.#storage = "float16";
    return new GpuTensor(narrowed.array, [...shape], true);
  }

  halves(matrices: readonly HalfMatrix[]): Promise<HalfWeights> | undefined {
    const numbers = matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    if (numbers < this.#float16From) return undefined;
    const reason = whyNotUploaded(this.#device, matrices);
    if (reason === undefined) return this.#uploadHalves(matrices);
    log(1, `weights of 16 bits are uploaded as float32: ${reason}`);
    return undefined;
  }

  async #uploadHalves(matrices: readonly HalfMatrix[]): Promise<HalfWeights> {
    // Only the first layer waits: the others' uploads begin at once, while the device has work (see compress/ahead.ts).
    const uploaded = new HalfMatrices(this.#device, this.#kernels.matrices ?? await this.#prepareMatrices(), matrices);
    try {
      const sums = await uploaded.sums();
      return {
        squares: sums.map(({ finite, squares }) => finite ? squares : Number.NaN),
        tensor: (placed, shape) => {
          checkSize("tensor", placed.length * matrices[0]!.rows * matrices[0]!.columns, shape);
          const { array, refused } = uploaded.tensor(placed, sums);
          this.#storage = refused === undefined ? "float16" : "float32";
          if (refused !== undefined) log(1, `weights [${shape}] are stored as float32: ${refused}`);
          return new GpuTensor(array, [...shape], true);
        },
        [Symbol.dispose]: () => uploaded[Symbol.dispose](),
      };
    } catch (error) {
      uploaded[Symbol.dispose]();
      throw error;
    }
  }

  get uploadedBytes(): number {
    return this.#device.commands.uploadedBytes;
  }

  async read(tensor: OpsTensor): Promise<Float32Array> {
    return await this.#array(tensor).read();
  }

  reshape(tensor: OpsTensor, shape: readonly number[]): OpsTensor {
    checkSize("reshape", size(tensor.shape), shape);
    return new GpuTensor(this.#array(tensor), [...shape], false);
  }

  modeProduct(tensor: OpsTensor, mode: number, matrix: OpsTensor): OpsTensor {
    const box = this.#box("modeProduct", tensor, mode);
    const factor = this.#matrix("modeProduct", matrix);
    if (factor.rows !== box.rows) {
      throw new RangeError(
        `modeProduct: mode ${mode} of [${tensor.shape}] needs a matrix of ${box.rows} rows, got [${matrix.shape}]`,
      );
    }
    const shape = tensor.shape.with(mode, factor.columns);
    return this.#result("mode product", shape, box.rows, (array) => {
      modeProduct(this.#kernels.planner, box, factor, { ...box, array, rows: factor.columns });
    });
  }

  async gram(tensor: OpsTensor, mode: number): Promise<Float64Array> {
    const box = this.#box("gram", tensor, mode);
    if (size(tensor.shape) === 0) return new Float64Array(box.rows * box.rows);
    return await gram(this.#kernels, box);
  }

  matmul(
    a: OpsTensor,
    b: OpsTensor,
    options: { readonly transposeA?: boolean; readonly transposeB?: boolean } = {},
  ): OpsTensor {
    const left = this.#matrix("matmul", a);
    const right = this.#matrix("matmul", b);
    const [m, k] = options.transposeA ? [left.columns, left.rows] : [left.rows, left.columns];
    const [inner, n] = options.transposeB ? [right.columns, right.rows] : [right.rows, right.columns];
    if (k !== inner) {
      throw new RangeError(`matmul: inner sizes must agree, got ${m}×${k} times ${inner}×${n}`);
    }
    return this.#result("matrix product", [m, n], k, (array) => {
      matrixProduct(this.#kernels.planner, { ...options, a: left, b: right }, { array, outer: 1, rows: m, columns: n });
    });
  }

  [Symbol.dispose](): void {
    if (this.#owner) this.#device[Symbol.dispose]();
  }

  /** Compiles what float16 tensors need. */
  async #prepareHalf(): Promise<void> {
    const { pipelines } = this.#device;
    [this.#kernels.smallHalf] = await Promise.all([pipelines.get(gramSmallHalf), this.#kernels.planner.prepareHalf()]);
  }

  async #prepareNarrowing(): Promise<NarrowPipeline> {
    const [narrowing] = await Promise.all([this.#device.pipelines.get(narrowHalf), this.#prepareHalf()]);
    return this.#kernels.narrowing = narrowing;
  }

  /** Compiles what stored 16-bit weights need. */
  async #prepareMatrices(): Promise<HalfMatrixKernels> {
    const [matrices] = await Promise.all([compileHalfMatrices(this.#device), this.#prepareHalf()]);
    return this.#kernels.matrices = matrices;
  }

  /** A new tensor that `record` fills; empty sums are zero. */
  #result(label: string, shape: readonly number[], terms: number, record: (array: GpuArray) => void): OpsTensor {
    const array = new GpuArray(this.#device, size(shape), `${label} [${shape}]`);
    if (terms === 0) array.clear();
    else if (array.length > 0) record(array);
    return new GpuTensor(array, shape, true);
  }

  #array(tensor: OpsTensor): GpuArray {
    if (!(tensor instanceof GpuTensor) || tensor.array.device !== this.#device) {
      throw new TypeError(`the tensor [${tensor.shape}] belongs to other operations than these`);
    }
    return tensor.array;
  }

  #box(operation: string, tensor: OpsTensor, mode: number): Box3 {
    const { shape } = tensor;
    const rows = shape[mode];
    if (rows === undefined) throw new RangeError(`${operation}: a tensor of shape [${shape}] has no mode ${mode}`);
    return {
      array: this.#array(tensor),
      outer: size(shape.slice(0, mode)),
      rows,
      columns: size(shape.slice(mode + 1)),
    };
  }

  #matrix(operation: string, tensor: OpsTensor): Box3 & { readonly outer: 1 } {
    const [rows, columns] = tensor.shape;
    if (tensor.shape.length !== 2 || rows === undefined || columns === undefined) {
      throw new RangeError(`${operation}: expected a matrix, got shape [${tensor.shape}]`);
    }
    return { array: this.#array(tensor), outer: 1, rows, columns };
  }
}

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

function checkSize(operation: string, length: number, shape: readonly number[]): void {
  if (length !== size(shape)) throw new RangeError(`${operation}: ${length} numbers don't fill shape [${shape}]`);
}
