/**
 * The tensor operations on the CPU: every product through `linalg/matmul.ts` (ONNX Runtime's MatMul). One implementation in
 * two precisions: float32 is the `TuckerOps` of the CPU, float64 serves tensors so small that precision costs nothing.
 *
 * @module
 */
import { type FloatArray, type GraphNode, matmul, runGraph, type SmallGraph, transposed } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { modeGram, type ModeSizes } from "./cpu_gram.ts";
import type { FilterStep, OpsTensor, TuckerOps } from "./ops.ts";

/** `TuckerOps` with arrays of another precision on the host side. */
export interface PreciseOps<T extends FloatArray> extends Omit<TuckerOps, "tensor" | "adopt" | "read" | "filterStep"> {
  /** Copies host data in. */
  tensor(data: T, shape: readonly number[]): OpsTensor;
  /** Takes host data over. */
  adopt(data: T, shape: readonly number[]): OpsTensor;
  /** Copies a tensor out. */
  read(tensor: OpsTensor): Promise<T>;
}

/** float32 operations on the CPU. */
export function createCpuOps(): Promise<TuckerOps> {
  return Promise.resolve(new Float32Ops());
}

/** The same operations in float64. */
export function createFloat64Ops(): PreciseOps<Float64Array> {
  return new CpuOps(Float64Array);
}

type ArrayType<T> = new (source: number | ArrayLike<number>) => T;

/**
 * Numbers that may still be under computation; an error surfaces at whoever awaits them. Their memory is given back when their tensor
 * is disposed and nothing computes with them any more.
 */
class Numbers<T extends FloatArray> {
  readonly #data: Promise<T>;
  /** The tensor, and the computations that have begun. */
  #users = 1;

  constructor(data: Promise<T>) {
    this.#data = data;
    data.catch(() => {}); // not unhandled: rethrown to the reader
  }

  /** The numbers, kept until `drop` is called as often. */
  hold(): Promise<T> {
    this.#users++;
    return this.#data;
  }

  drop(): void {
    if (--this.#users === 0) this.#data.then((data) => release(data), () => {});
  }
}

/** Numbers under a shape; reshaped tensors share those of the one that they come from. */
class CpuTensor<T extends FloatArray> implements OpsTensor {
  #disposed = false;

  constructor(readonly numbers: Numbers<T>, readonly shape: readonly number[], readonly origin?: CpuTensor<T>) {}

  get disposed(): boolean {
    return this.#disposed || this.origin?.disposed === true;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (this.origin === undefined) this.numbers.drop();
  }
}

class CpuOps<T extends FloatArray> implements PreciseOps<T> {
  readonly backend = "cpu";
  readonly adapter = "ONNX Runtime (MLAS)";
  readonly #type: ArrayType<T>;

  constructor(type: ArrayType<T>) {
    this.#type = type;
  }

  tensor(data: T, shape: readonly number[]): OpsTensor {
    return this.adopt(new this.#type(data), shape);
  }

  adopt(data: T, shape: readonly number[]): OpsTensor {
    checkSize("tensor", data.length, shape);
    return new CpuTensor(new Numbers(Promise.resolve(data)), shape);
  }

  read(tensor: OpsTensor): Promise<T> {
    return this.with([tensor], (data) => new this.#type(data));
  }

  reshape(tensor: OpsTensor, shape: readonly number[]): OpsTensor {
    checkSize("reshape", size(tensor.shape), shape);
    const own = this.#own(tensor);
    return new CpuTensor(own.numbers, shape, own);
  }

  modeProduct(tensor: OpsTensor, mode: number, matrix: OpsTensor): OpsTensor {
    const { outer, length, inner } = modeSizes("modeProduct", tensor.shape, mode);
    const [rows, columns] = matrixSizes("modeProduct", matrix);
    if (rows !== length) {
      throw new RangeError(
        `modeProduct: mode ${mode} of [${tensor.shape}] needs a matrix of ${length} rows, got ${rows}`,
      );
    }
    const product = this.with([tensor, matrix], (data, factor) => {
      if (inner === 1) return matmul(data, factor, { m: outer, k: length, n: columns });
      const left = transposed(factor, rows, columns);
      return matmul(left, data, { m: columns, k: length, n: inner, batch: outer });
    });
    return new CpuTensor(new Numbers(product), tensor.shape.with(mode, columns));
  }

  async gram(tensor: OpsTensor, mode: number): Promise<Float64Array> {
    const sizes = modeSizes("gram", tensor.shape, mode);
    return await this.with([tensor], (data) => modeGram(data, sizes));
  }

  matmul(
    a: OpsTensor,
    b: OpsTensor,
    options: { readonly transposeA?: boolean; readonly transposeB?: boolean } = {},
  ): OpsTensor {
    const { transposeA = false, transposeB = false } = options;
    const [rowsA, columnsA] = matrixSizes("matmul", a);
    const [rowsB, columnsB] = matrixSizes("matmul", b);
    const [m, k] = transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
    const [inner, n] = transposeB ? [columnsB, rowsB] : [rowsB, columnsB];
    if (k !== inner) {
      throw new RangeError(`matmul: inner sizes must agree, got ${m}×${k} times ${inner}×${n}`);
    }
    const product = this.with(
      [a, b],
      (left, right) => matmul(left, right, { m, k, n, transposeA, transposeB }),
    );
    return new CpuTensor(new Numbers(product), [m, n]);
  }

  /** Computes with the numbers of tensors, which may be disposed meanwhile. The result must not share memory with them. */
  protected async with<N extends OpsTensor[], R>(
    tensors: readonly [...N],
    compute: (...data: { [K in keyof N]: T }) => R | Promise<R>,
  ): Promise<R> {
    const numbers = tensors.map((tensor) => this.#own(tensor).numbers);
    const data = numbers.map((each) => each.hold());
    try {
      return await compute(...await Promise.all(data) as { [K in keyof N]: T });
    } finally {
      for (const each of numbers) each.drop();
    }
  }

  #own(tensor: OpsTensor): CpuTensor<T> {
    if (!(tensor instanceof CpuTensor)) throw new TypeError("the tensor belongs to other operations than these");
    if (tensor.disposed) throw new TypeError(`tensor [${tensor.shape}] was used after it was disposed`);
    return tensor;
  }

  [Symbol.dispose](): void {
    // tensors give their memory back themselves
  }
}

class Float32Ops extends CpuOps<Float32Array> implements TuckerOps {
  constructor() {
    super(Float32Array);
  }

  async filterStep(matrix: OpsTensor, { current, before, scale, across }: FilterStep): Promise<Float32Array> {
    const [m, n] = matrixSizes("filterStep", matrix);
    const rows = across ? n : m;
    const dims = [rows, current.length / rows];
    return await this.with([matrix], (data) =>
      runGraph(`filter step ${across}`, () => filterGraph(across), {
        a: { data, dims: [m, n] },
        x: { data: current, dims },
        p: { data: before, dims },
        s: { data: Float32Array.of(2 * scale), dims: [1] },
      }, dims));
  }
}

/** y = s·op(A) op(A)ᵀ X − 2X − P, op being a transposition where `across` is set. */
function filterGraph(across: boolean): SmallGraph {
  const product = (input: string, output: string, transposed: boolean): GraphNode =>
    transposed
      ? { operator: "FusedMatMul", own: true, inputs: ["a", input], output, attributes: { transA: 1 } }
      : { operator: "MatMul", inputs: ["a", input], output };
  const nodes = [
    product("x", "once", !across),
    product("once", "twice", across),
    { operator: "Mul", inputs: ["twice", "s"], output: "image" },
    { operator: "Sub", inputs: ["image", "p"], output: "rest" },
    { operator: "Add", inputs: ["x", "x"], output: "double" },
    { operator: "Sub", inputs: ["rest", "double"], output: "y" },
  ];
  return { type: "float32", inputs: ["a", "x", "p", "s"], nodes, output: "y" };
}

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

function checkSize(operation: string, length: number, shape: readonly number[]): void {
  if (length !== size(shape)) throw new RangeError(`${operation}: ${length} numbers don't fill shape [${shape}]`);
}

function modeSizes(operation: string, shape: readonly number[], mode: number): ModeSizes {
  const length = shape[mode];
  if (length === undefined) throw new RangeError(`${operation}: a tensor of shape [${shape}] has no mode ${mode}`);
  return { outer: size(shape.slice(0, mode)), length, inner: size(shape.slice(mode + 1)) };
}

function matrixSizes(operation: string, { shape }: OpsTensor): [number, number] {
  const [rows, columns] = shape;
  if (shape.length !== 2 || rows === undefined || columns === undefined) {
    throw new RangeError(`${operation}: expected a matrix, got shape [${shape}]`);
  }
  return [rows, columns];
}
