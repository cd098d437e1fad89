/**
 * Matrix products and mode products of arrays of any size: cut so that every part fits a binding.
 *
 * @module
 */
import type { Operand } from "./operand.ts";
import type { ProductPlanner } from "./product.ts";
import {
  type BoundRegion,
  type Box3,
  cut,
  extent,
  type Range,
  readRegion,
  regionLimit,
  writeRegion,
} from "./region.ts";

/** A dense matrix as a box. */
export type Matrix = Box3 & { readonly outer: 1 };

const ONE: Range = { start: 0, end: 1 };

/** Records `out[o, j, i] = Σ_k matrix[k, j] · box[o, k, i]`; no size may be 0. */
export function modeProduct(planner: ProductPlanner, box: Box3, matrix: Matrix, out: Box3): void {
  if (box.columns === 1) {
    const flat = (b: Box3): Matrix => ({ array: b.array, outer: 1, rows: b.outer, columns: b.rows });
    return matrixProduct(planner, { a: flat(box), b: matrix }, flat(out));
  }
  const steps = modeSteps(box, out.rows, regionLimit(box.array.device.limits));
  for (const outer of cut(box.outer, steps.outer)) {
    for (const columns of cut(box.columns, steps.columns)) {
      for (const j of cut(out.rows, steps.j)) {
        for (const k of cut(box.rows, steps.k)) {
          const accumulate = k.start > 0;
          writeRegion(
            out,
            { outer, rows: j, columns },
            accumulate,
            (target) =>
              readRegion(
                box,
                { outer, rows: k, columns },
                (tensor) =>
                  readRegion(matrix, { outer: ONE, rows: k, columns: j }, (factor) => {
                    const contraction = { length: extent(k), inner: extent(k) };
                    const a = { ...asColumns(factor), kOuterStride: 0 };
                    const b: Operand = {
                      slice: tensor.slice,
                      unit: tensor.unit,
                      base: tensor.base,
                      count: tensor.outer * tensor.columns,
                      inner: tensor.columns,
                      outerStride: tensor.outerStride,
                      innerStride: 1,
                      kOuterStride: 0,
                      kInnerStride: tensor.rowStride,
                    };
                    planner.run({ a, b, k: contraction, accumulate }, {
                      slice: target.slice,
                      base: target.base,
                      xStride: target.rowStride,
                      outerStride: target.outerStride,
                      innerStride: 1,
                    });
                  }),
              ),
          );
        }
      }
    }
  }
}

/** Operands of a matrix product and whether they are transposed. */
export interface MatrixOperands {
  readonly a: Matrix;
  readonly b: Matrix;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/** Records `out = op(a) @ op(b)`; no size may be 0. */
export function matrixProduct(planner: ProductPlanner, operands: MatrixOperands, out: Matrix): void {
  const { a, b, transposeA = false, transposeB = false } = operands;
  const sizes = { m: out.rows, n: out.columns, k: transposeA ? a.rows : a.columns };
  const steps = matrixSteps(sizes, { transposeA, transposeB }, regionLimit(out.array.device.limits));
  const region = (rows: Range, columns: Range, transpose: boolean) => ({
    outer: ONE,
    rows: transpose ? columns : rows,
    columns: transpose ? rows : columns,
  });
  for (const m of cut(sizes.m, steps.m)) {
    for (const n of cut(sizes.n, steps.n)) {
      for (const k of cut(sizes.k, steps.k)) {
        const accumulate = k.start > 0;
        writeRegion(
          out,
          region(m, n, false),
          accumulate,
          (target) =>
            readRegion(
              a,
              region(m, k, transposeA),
              (left) =>
                readRegion(b, region(k, n, transposeB), (right) =>
                  planner.run({
                    a: transposeA ? asColumns(left) : asRows(left),
                    b: transposeB ? asRows(right) : asColumns(right),
                    k: { length: extent(k), inner: extent(k) },
                    accumulate,
                  }, {
                    slice: target.slice,
                    base: target.base,
                    xStride: target.rowStride,
                    outerStride: 0,
                    innerStride: 1,
                  })),
            ),
        );
      }
    }
  }
}

/** A matrix whose rows are x and whose columns are contracted. */
function asRows({ slice, unit, base, rows, rowStride }: BoundRegion): Operand {
  const strides = { outerStride: 0, innerStride: rowStride, kOuterStride: 0, kInnerStride: 1 };
  return { slice, unit, base, count: rows, inner: rows, ...strides };
}

/** A matrix whose columns are x and whose rows are contracted. */
function asColumns({ slice, unit, base, columns, rowStride }: BoundRegion): Operand {
  const strides = { outerStride: 0, innerStride: 1, kOuterStride: 0, kInnerStride: rowStride };
  return { slice, unit, base, count: columns, inner: columns, ...strides };
}

interface ModeSteps {
  readonly outer: number;
  readonly k: number;
  readonly j: number;
  readonly columns: number;
}

/** Cuts the outermost index first: what it leaves lies in one piece. */
function modeSteps(box: Box3, j: number, limit: number): ModeSteps {
  const outer = Math.floor(limit / (Math.max(box.rows, j) * box.columns));
  const columns = Math.min(box.columns, limit);
  const steps = { outer: Math.max(1, outer), k: box.rows, j, columns };
  steps.k = atMost(steps.k, limit / columns);
  steps.j = atMost(steps.j, limit / columns);
  steps.k = atMost(steps.k, limit / steps.j);
  return steps;
}

/** Cuts rows as they are stored before columns. */
function matrixSteps(
  sizes: { readonly m: number; readonly n: number; readonly k: number },
  { transposeA, transposeB }: { readonly transposeA: boolean; readonly transposeB: boolean },
  limit: number,
): { readonly m: number; readonly n: number; readonly k: number } {
  const steps = { ...sizes };
  const fit = (rows: "m" | "n" | "k", columns: "m" | "n" | "k"): void => {
    steps[columns] = atMost(steps[columns], limit);
    steps[rows] = atMost(steps[rows], limit / steps[columns]);
  };
  if (transposeA) fit("k", "m");
  else fit("m", "k");
  if (transposeB) fit("n", "k");
  else fit("k", "n");
  fit("m", "n");
  return steps;
}

const atMost = (size: number, limit: number): number => Math.max(1, Math.min(size, Math.floor(limit)));
