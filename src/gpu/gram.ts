/**
 * Gram matrices of arrays of any size, as float64 on the host: the device sums bounded chains in float32, the host the rest.
 *
 * @module
 */
import { gramSmall, gramSmallHalf } from "../../kernels/mod.ts";
import { GpuArray } from "./array.ts";
import { float32Bits, type Operand } from "./operand.ts";
import type { Pipeline } from "./pipelines.ts";
import type { Partials, ProductPlanner } from "./product.ts";
import { type BoundRegion, type Box3, cut, extent, type Range, readRegion, regionLimit } from "./region.ts";

/** Rows up to which the memory-bound kernel serves; its partial matrices are this size. */
const SMALL_ROWS = 4;
/** Workgroups of that kernel: enough to fill a large device, few enough to read back at once. */
const SMALL_GROUPS = 1024;
/** Terms that one of its invocations sums at least, before more workgroups are worth their readback. */
const SMALL_TERMS = 8;
/** Numbers of partial products that are read back for the host to add. */
const READABLE = 2 ** 18;

/** Parts of the block (rows × columns) of a Gram matrix, each stored with `width` numbers a row. */
interface Block {
  readonly rows: Range;
  readonly columns: Range;
  readonly width: number;
  readonly height: number;
  readonly partials: Partials;
}

/**
 * Gram matrix of the rows of a box, rows × rows: out[j, k] = Σ_{o,c} box[o, j, c] · box[o, k, c], symmetric to the last bit.
 * Everything is recorded before the first wait; no size may be 0.
 */
export async function gram(
  kernels: GramKernels,
  box: Box3,
): Promise<Float64Array> {
  const limit = regionLimit(box.array.device.limits);
  const columnStep = Math.min(box.columns, limit);
  const rowStep = Math.max(1, Math.min(box.rows, Math.floor(limit / columnStep), Math.floor(Math.sqrt(limit))));
  const outerStep = rowStep < box.rows ? 1 : Math.max(1, Math.floor(limit / (box.rows * columnStep)));
  const blocks: Block[] = [];
  try {
    for (const outer of cut(box.outer, outerStep)) {
      for (const columns of cut(box.columns, columnStep)) {
        for (const rows of cut(box.rows, rowStep)) {
          readRegion(box, { outer, rows, columns }, (left) => {
            const small = extent(rows) === box.rows ? smallBlock(kernels, box, left) : undefined;
            if (small !== undefined) {
              blocks.push(small);
              return;
            }
            blocks.push(productBlock(kernels.planner, rows, left, rows, left));
            for (const other of cut(box.rows, rowStep)) {
              if (other.start <= rows.start) continue;
              readRegion(box, { outer, rows: other, columns }, (right) => {
                blocks.push(productBlock(kernels.planner, rows, left, other, right));
              });
            }
          });
        }
      }
    }
    // all at once: a wait may cost more than the numbers (see readback.ts)
    const parts = await Promise.all(blocks.map(({ partials }) => partials.array.read()));
    const result = new Float64Array(box.rows * box.rows);
    blocks.forEach((block, index) => addBlock(result, box.rows, block, parts[index]!));
    mirror(result, box.rows);
    return result;
  } finally {
    for (const { partials } of blocks) partials[Symbol.dispose]();
  }
}

/** Names of a kernel's parameters. */
type ParamOf<K> = K extends { readonly params: readonly (infer P extends string)[] } ? P : never;

/** What computes Gram matrices; `smallHalf` is needed for float16 arrays. */
export interface GramKernels {
  readonly planner: ProductPlanner;
  readonly small: Pipeline<ParamOf<typeof gramSmall>>;
  readonly smallHalf?: Pipeline<ParamOf<typeof gramSmallHalf>> | undefined;
}

/** The block by the memory-bound kernel; undefined where there are too many rows, or float16 numbers that don't lie in fours. */
function smallBlock({ small, smallHalf }: GramKernels, box: Box3, bound: BoundRegion): Block | undefined {
  const { base, rowStride, outerStride, unit } = bound;
  const fours = [base, bound.columns, rowStride, outerStride].every((number) => number % 4 === 0);
  if (box.rows > SMALL_ROWS || (unit !== 0 && !fours)) return undefined;
  const { device } = box.array;
  const count = bound.outer * bound.columns;
  const groups = Math.max(
    1,
    Math.min(SMALL_GROUPS, Math.ceil(count / (256 * SMALL_TERMS)), Math.floor(regionLimit(device.limits) / 16)),
  );
  const array = new GpuArray(device, groups * SMALL_ROWS ** 2, "partial Gram matrices");
  const params = { n: bound.rows, count, inner: bound.columns, base, rowStride, outerStride, groups };
  const slices = [bound.slice, array.slice];
  if (unit === 0) device.commands.dispatch(small, { ...params, innerStride: 1 }, slices);
  else device.commands.dispatch(smallHalf!, { ...params, unit: float32Bits(unit) }, slices);
  const all = { start: 0, end: bound.rows };
  const partials = { count: groups, array, [Symbol.dispose]: () => array[Symbol.dispose]() };
  return { rows: all, columns: all, width: SMALL_ROWS, height: SMALL_ROWS, partials };
}

function productBlock(
  planner: ProductPlanner,
  rows: Range,
  left: BoundRegion,
  columns: Range,
  right: BoundRegion,
): Block {
  const k = left.columns === 1
    ? { length: left.outer, inner: left.outer }
    : { length: left.outer * left.columns, inner: left.columns };
  const upperOnly = rows.start === columns.start;
  const partials = planner.parts({ a: contracted(left), b: contracted(right), k, upperOnly }, READABLE);
  return { rows, columns, width: extent(columns), height: extent(rows), partials };
}

/** Rows are x; outer and columns are contracted. */
function contracted({ slice, unit, base, rows, columns, outerStride, rowStride }: BoundRegion): Operand {
  const k = columns === 1
    ? { kOuterStride: 0, kInnerStride: outerStride }
    : { kOuterStride: outerStride, kInnerStride: 1 };
  return { slice, unit, base, count: rows, inner: rows, outerStride: 0, innerStride: rowStride, ...k };
}

/** Adds the upper triangle of all parts of a block. */
function addBlock(result: Float64Array, n: number, block: Block, parts: Float32Array): void {
  const { rows, columns, width, height, partials } = block;
  for (let part = 0; part < partials.count; part++) {
    for (let j = 0; j < extent(rows); j++) {
      const from = (part * height + j) * width;
      const to = (rows.start + j) * n + columns.start;
      const first = Math.max(0, rows.start + j - columns.start);
      for (let k = first; k < extent(columns); k++) result[to + k]! += parts[from + k]!;
    }
  }
}

function mirror(matrix: Float64Array, n: number): void {
  for (let j = 0; j < n; j++) for (let k = 0; k < j; k++) matrix[j * n + k] = matrix[k * n + j]!;
}
