/**
 * The tensor operations on the CPU: every product through `linalg/matmul.ts` (ONNX Runtime's MatMul). One implementation in
 * two precisions: float32 is the `TuckerOps` of the CPU, float64 serves tensors so small that precision costs nothing.
 *
 * @module
 */
import { addDots, type FloatArray, matmul, transposed } from "../linalg/mod.ts";
import { release } from "../release.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";

/** `TuckerOps` with arrays of another precision on the host side. */
export interface PreciseOps<T extends FloatArray> extends Omit<TuckerOps, "tensor" | "adopt" | "read"> {
  /** Copies host data in. */
  tensor(data: T, shape: readonly number[]): OpsTensor;
  /** Takes host data over. */
  adopt(data: T, shape: readonly number[]): OpsTensor;
  /** Copies a tensor out. */
  read(tensor: OpsTensor): Promise<T>;
}

/** float32 operations on the CPU. */
export function createCpuOps(): Promise<TuckerOps> {
  return Promise.resolve(new CpuOps(Float32Array));
}

/** The same operations in float64. */
export function createFloat64Ops(): PreciseOps<Float64Array> {
  return new CpuOps(Float64Array);
}

type ArrayType<T> = new (source: number | ArrayLike<number>) => T;

/** Longest sum that is left to float32: longer ones are cut, and the pieces added in float64. */
const SUM_LENGTH = 1024;
/** Numbers of partial Gram matrices that are held at once. */
const PARTIAL_GRAMS = 1 << 24;
/** Up to this size a Gram matrix is memory-bound, and plain float64 loops over the data are as fast as a product. */
const SMALL_GRAM = 8;

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
    return this.#with([tensor], (data) => new this.#type(data));
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
    const product = this.#with([tensor, matrix], (data, factor) => {
      if (inner === 1) return matmul(data, factor, { m: outer, k: length, n: columns });
      const left = transposed(factor, rows, columns);
      return matmul(left, data, { m: columns, k: length, n: inner, batch: outer });
    });
    return new CpuTensor(new Numbers(product), tensor.shape.with(mode, columns));
  }

  async gram(tensor: OpsTensor, mode: number): Promise<Float64Array> {
    const sizes = modeSizes("gram", tensor.shape, mode);
    return await this.#with([tensor], async (data) => {
      if (sizes.length <= SMALL_GRAM) return smallGram(data, sizes);
      return symmetrised(
        sizes.inner === 1 ? await gramOfColumns(data, sizes) : await gramOfRows(data, sizes),
        sizes.length,
      );
    });
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
    const product = this.#with(
      [a, b],
      (left, right) => matmul(left, right, { m, k, n, transposeA, transposeB }),
    );
    return new CpuTensor(new Numbers(product), [m, n]);
  }

  /** Computes with the numbers of tensors, which may be disposed meanwhile. The result must not share memory with them. */
  async #with<N extends OpsTensor[], R>(
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

/** A tensor seen from one mode: how many numbers lie before, in and behind it. */
interface ModeSizes {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
}

/** Gram matrix of few rows: dot products in float64. */
function smallGram(data: FloatArray, { outer, length, inner }: ModeSizes): Float64Array {
  const gram = new Float64Array(length * length);
  for (let o = 0; o < outer; o++) {
    const start = o * length * inner;
    const row = (j: number): FloatArray => data.subarray(start + j * inner, start + (j + 1) * inner);
    addDots(gram, Array.from({ length }, (_, j) => row(j)));
  }
  return gram;
}

/** AᵀA of an outer×length matrix, cut along its rows. */
async function gramOfColumns<T extends FloatArray>(data: T, { outer, length }: ModeSizes): Promise<Float64Array> {
  const gram = new Float64Array(length * length);
  const group = Math.max(1, Math.floor(PARTIAL_GRAMS / length ** 2));
  for (let row = 0; row < outer;) {
    const k = Math.min(SUM_LENGTH, outer - row);
    const batch = k === SUM_LENGTH ? Math.min(group, Math.floor((outer - row) / SUM_LENGTH)) : 1;
    const part = data.subarray(row * length, (row + batch * k) * length) as T;
    addPieces(gram, await matmul(part, part, { m: length, k, n: length, batch, transposeA: true }));
    row += batch * k;
  }
  return gram;
}

/** Sum of A Aᵀ over `outer` matrices of length×inner, cut along their columns. */
async function gramOfRows<T extends FloatArray>(data: T, { outer, length, inner }: ModeSizes): Promise<Float64Array> {
  const gram = new Float64Array(length * length);
  const group = Math.max(1, Math.floor(PARTIAL_GRAMS / length ** 2));
  for (let start = 0; start < inner; start += SUM_LENGTH) {
    const k = Math.min(SUM_LENGTH, inner - start);
    for (let o = 0; o < outer; o += group) {
      const batch = Math.min(group, outer - o);
      const whole = data.subarray(o * length * inner, (o + batch) * length * inner) as T;
      const part = k === inner ? whole : columnsOf(whole, inner, start, k);
      addPieces(gram, await matmul(part, part, { m: length, k, n: length, batch, transposeB: true }));
      if (part !== whole) release(part);
    }
  }
  return gram;
}

/** Columns start..start+count of a matrix with `width` columns. */
function columnsOf<T extends FloatArray>(matrix: T, width: number, start: number, count: number): T {
  const rows = matrix.length / width;
  const part = new (matrix.constructor as ArrayType<T>)(rows * count);
  for (let row = 0; row < rows; row++) {
    part.set(matrix.subarray(row * width + start, row * width + start + count), row * count);
  }
  return part;
}

/** Adds all matrices of a batch to `sum`, and releases them. */
function addPieces(sum: Float64Array, pieces: FloatArray): void {
  for (let start = 0; start < pieces.length; start += sum.length) {
    for (let i = 0; i < sum.length; i++) sum[i]! += pieces[start + i]!;
  }
  release(pieces);
}

function symmetrised(matrix: Float64Array, n: number): Float64Array {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const mean = (matrix[i * n + j]! + matrix[j * n + i]!) / 2;
      matrix[i * n + j] = mean;
      matrix[j * n + i] = mean;
    }
  }
  return matrix;
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
