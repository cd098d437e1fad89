/**
 * The strided matrix product on a device: runs the plan, and adds the parts of a contraction that was cut.
 *
 * @module
 */
import {
  type Kernel,
  matmul,
  matmulHalf,
  matmulSkinny,
  matmulSkinnyHalf,
  matmulTall,
  matmulTallHalf,
  sumPartials,
} from "../../kernels/mod.ts";
import { GpuArray } from "./array.ts";
import type { GpuDevice } from "./device.ts";
import type { BufferSlice } from "./dispatch.ts";
import { float32Bits, loadOf, type Operand, operandParams } from "./operand.ts";
import type { Pipeline } from "./pipelines.ts";
import { type Factors, planProduct, type ProductPlan } from "./plan.ts";
import { cut, regionLimit } from "./region.ts";

/**
 * Where a product goes: element (x, y) at base + x·xStride + (y / inner)·outerStride + (y % inner)·innerStride, with the
 * `inner` of operand b.
 */
export interface Output {
  readonly slice: BufferSlice;
  readonly base: number;
  readonly xStride: number;
  readonly outerStride: number;
  readonly innerStride: number;
}

/** A product: `out[x, y] = Σ_k a[x, k] b[y, k]`. */
export interface Product extends Factors {
  /** Adds to what the output holds. */
  readonly accumulate?: boolean;
  /** Leaves unspecified what lies below the diagonal of a symmetric result. */
  readonly upperOnly?: boolean;
}

/** Parts of a dense x × y result, one after the other; the result is their sum. */
export interface Partials extends Disposable {
  readonly count: number;
  readonly array: GpuArray;
}

/** The compiled kernels of the product. */
export class ProductPlanner {
  readonly #device: GpuDevice;
  readonly #pipelines: Pipelines;
  #half: HalfPipelines | undefined;

  private constructor(device: GpuDevice, pipelines: Pipelines) {
    this.#device = device;
    this.#pipelines = pipelines;
  }

  /** Compiles the kernels. */
  static async create(device: GpuDevice): Promise<ProductPlanner> {
    const { pipelines } = device;
    const [large, small, skinny, tall, sum] = await Promise.all([
      pipelines.get(matmul, { T: 16 }),
      pipelines.get(matmul, { T: 8 }),
      pipelines.get(matmulSkinny),
      pipelines.get(matmulTall),
      pipelines.get(sumPartials),
    ]);
    return new ProductPlanner(device, { large, small, skinny, tall, sum });
  }

  /** Compiles the kernels for float16 operands, which most runs never need; to be awaited before such an operand comes. */
  async prepareHalf(): Promise<void> {
    const { pipelines } = this.#device;
    const [large, small, skinny, tall] = await Promise.all([
      pipelines.get(matmulHalf, { T: 16 }),
      pipelines.get(matmulHalf, { T: 8 }),
      pipelines.get(matmulSkinnyHalf),
      pipelines.get(matmulTallHalf),
    ]);
    this.#half = { large, small, skinny, tall };
  }

  /** Records a product into `out`. */
  run(product: Product, out: Output): void {
    const { a, b, k } = product;
    const plan = planProduct(product, this.#device.limits);
    let accumulate = product.accumulate === true;
    for (const { start, end } of cut(k.length, plan.chunk * plan.chunks)) {
      const part = partOf(product, plan, start, end);
      if (part.chunks === 1) {
        this.#dispatch({ ...part, accumulate }, out, 0);
      } else {
        using partials = this.#partials(part);
        this.#add(partials, { x: a.count, b, groups: 1 }, { ...out, accumulate });
      }
      accumulate = true;
    }
  }

  /**
   * Records a product as partial results, few enough to be read, for a caller who adds them more precisely.
   *
   * @param readable numbers that the caller is ready to read
   */
  parts(product: Product, readable: number): Partials {
    const { a, b, k } = product;
    const size = a.count * b.count;
    const plan = planProduct(product, this.#device.limits);
    const rounds = [...cut(k.length, plan.chunk * plan.chunks)];
    const affordable = Math.floor(Math.min(readable, regionLimit(this.#device.limits)) / size);
    const groups = Math.max(1, Math.min(plan.chunks, affordable));
    if (rounds.length === 1 && groups === plan.chunks) return this.#partials(partOf(product, plan, 0, k.length));
    const array = new GpuArray(this.#device, groups * size, "grouped partial products");
    rounds.forEach(({ start, end }, index) => {
      using partials = this.#partials(partOf(product, plan, start, end));
      this.#add(partials, { x: a.count, b, groups }, { ...denseOutput(array.slice, b), accumulate: index > 0 });
    });
    return { count: groups, array, [Symbol.dispose]: () => array[Symbol.dispose]() };
  }

  /** A product whose chunks go to arrays of their own. */
  #partials(part: Part): Partials {
    const { a, b, chunks } = part;
    const array = new GpuArray(this.#device, chunks * a.count * b.count, "partial products");
    this.#dispatch({ ...part, accumulate: false }, denseOutput(array.slice, b), a.count * b.count);
    return { count: chunks, array, [Symbol.dispose]: () => array[Symbol.dispose]() };
  }

  #dispatch(part: Part, out: Output, outChunk: number): void {
    const { a, b, k, kStart, kEnd, chunk, chunks, kernel } = part;
    const { commands } = this.#device;
    const slices = [a.slice, b.slice, out.slice];
    const accumulate = Number(part.accumulate === true);
    const common = { k: kEnd, kStart, chunk, chunks, outBase: out.base, outX: out.xStride, outChunk, accumulate };
    const outY = { outOuterStride: out.outerStride, outInnerStride: out.innerStride };
    const few = { x: a.count, y: b.count, aBase: a.base, aX: a.innerStride, bBase: b.base, bK: b.kInnerStride };
    const half = a.unit === 0 && b.unit === 0 ? undefined : this.#half;
    switch (kernel) {
      case "skinny": {
        const params = { ...common, ...outY, ...few, inner: b.inner, aK: a.kInnerStride, bOuterStride: b.outerStride };
        if (half !== undefined) return commands.dispatch(half.skinny, { ...params, unit: float32Bits(b.unit) }, slices);
        return commands.dispatch(this.#pipelines.skinny, { ...params, bInnerStride: b.innerStride }, slices);
      }
      case "tall": {
        const params = { ...common, ...few, bY: b.innerStride, outY: out.innerStride };
        if (half !== undefined) return commands.dispatch(half.tall, { ...params, unit: float32Bits(a.unit) }, slices);
        return commands.dispatch(this.#pipelines.tall, params, slices);
      }
      case "large":
      case "small": {
        const params = {
          ...common,
          ...outY,
          ...operandParams("a", { ...a, load: loadOf(a, k) }),
          ...operandParams("b", { ...b, load: loadOf(b, k) }),
          kInner: k.inner,
          upperOnly: Number(part.upperOnly === true),
        };
        if (half === undefined) return commands.dispatch(this.#pipelines[kernel], params, slices);
        const units = { aUnit: float32Bits(a.unit), bUnit: float32Bits(b.unit) };
        return commands.dispatch(half[kernel], { ...params, ...units }, slices);
      }
    }
  }

  #add(
    partials: Partials,
    { x, b, groups }: { readonly x: number; readonly b: Operand; readonly groups: number },
    out: Output & { readonly accumulate: boolean },
  ): void {
    this.#device.commands.dispatch(this.#pipelines.sum, {
      x,
      y: b.count,
      inner: b.inner,
      chunks: partials.count,
      perGroup: Math.ceil(partials.count / groups),
      groups,
      outBase: out.base,
      outGroup: x * b.count,
      outX: out.xStride,
      outOuterStride: out.outerStride,
      outInnerStride: out.innerStride,
      accumulate: Number(out.accumulate),
    }, [partials.array.slice, out.slice]);
  }
}

type PipelineOf<K> = K extends Kernel<infer P> ? Pipeline<P> : never;

interface Pipelines {
  readonly large: PipelineOf<typeof matmul>;
  readonly small: PipelineOf<typeof matmul>;
  readonly skinny: PipelineOf<typeof matmulSkinny>;
  readonly tall: PipelineOf<typeof matmulTall>;
  readonly sum: PipelineOf<typeof sumPartials>;
}

/** The same for float16 operands. */
interface HalfPipelines {
  readonly large: PipelineOf<typeof matmulHalf>;
  readonly small: PipelineOf<typeof matmulHalf>;
  readonly skinny: PipelineOf<typeof matmulSkinnyHalf>;
  readonly tall: PipelineOf<typeof matmulTallHalf>;
}

/** The part of a product that one dispatch computes. */
interface Part extends Product, ProductPlan {
  readonly kStart: number;
  readonly kEnd: number;
}

function partOf(product: Product, plan: ProductPlan, kStart: number, kEnd: number): Part {
  return { ...product, ...plan, kStart, kEnd, chunks: Math.ceil((kEnd - kStart) / plan.chunk) };
}

/** A dense x × y matrix. */
function denseOutput(slice: BufferSlice, b: Operand): Output {
  return { slice, base: 0, xStride: b.count, outerStride: b.inner, innerStride: 1 };
}
