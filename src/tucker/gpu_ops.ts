/**
 * The tensor operations on WebGPU. Operations are recorded and run in order; errors surface at the next read or Gram matrix.
 *
 * @module
 */
import { gramSmall } from "../../kernels/mod.ts";
import { GpuArray } from "../gpu/array.ts";
import { matrixProduct, modeProduct } from "../gpu/box_product.ts";
import { type DeviceOptions, type GpuDevice, openDevice } from "../gpu/device.ts";
import { gram, type GramSmallParam } from "../gpu/gram.ts";
import type { Pipeline } from "../gpu/pipelines.ts";
import { ProductPlanner } from "../gpu/product.ts";
import type { Box3 } from "../gpu/region.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";

/**
 * Opens a GPU and compiles its kernels.
 *
 * @throws TuckerdError `unavailable` if there is no adapter, or only a software one and `allowFallbackAdapter` isn't set
 */
export async function createGpuOps(options: DeviceOptions = {}): Promise<TuckerOps> {
  const device = await openDevice(options);
  try {
    const [planner, small] = await Promise.all([ProductPlanner.create(device), device.pipelines.get(gramSmall)]);
    return new GpuOps(device, planner, small);
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

class GpuOps implements TuckerOps {
  readonly backend = "webgpu";
  readonly adapter: string;
  readonly #device: GpuDevice;
  readonly #planner: ProductPlanner;
  readonly #small: Pipeline<GramSmallParam>;

  constructor(device: GpuDevice, planner: ProductPlanner, small: Pipeline<GramSmallParam>) {
    this.adapter = device.adapter;
    this.#device = device;
    this.#planner = planner;
    this.#small = small;
  }

  tensor(data: Float32Array, shape: readonly number[]): OpsTensor {
    checkSize("tensor", data.length, shape);
    return new GpuTensor(GpuArray.from(this.#device, data, `tensor [${shape}]`), [...shape], true);
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
      modeProduct(this.#planner, box, factor, { ...box, array, rows: factor.columns });
    });
  }

  async gram(tensor: OpsTensor, mode: number): Promise<Float64Array> {
    const box = this.#box("gram", tensor, mode);
    if (size(tensor.shape) === 0) return new Float64Array(box.rows * box.rows);
    return await gram({ planner: this.#planner, small: this.#small }, box);
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
      matrixProduct(this.#planner, { ...options, a: left, b: right }, { array, outer: 1, rows: m, columns: n });
    });
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
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
