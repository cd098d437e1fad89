/**
 * Error tables of the modes in which every matrix has factors of its own, for all four matrices or for some.
 *
 * @module
 */
import type { AttentionWeights, MatrixName } from "../attention/types.ts";
import { ErrorTable, hosvd, type HosvdOptions, type ModeTables, modeTables } from "../tucker/mod.ts";
import type { TuckerOps } from "../tucker/ops.ts";

/** What the tables are about. */
export interface ModeTableOptions extends Omit<HosvdOptions, "matrices"> {
  /** What mode `3d-tucker` decomposes; all four by default. */
  readonly matrices?: readonly MatrixName[] | undefined;
}

/** Error tables of all modes; that of `3d-tucker` is about the chosen matrices together. */
export async function tablesOfModes(
  weights: AttentionWeights,
  { matrices, ...options }: ModeTableOptions,
  ops: TuckerOps,
): Promise<ModeTables> {
  const tables = await modeTables(weights, options, ops);
  if (matrices === undefined) return tables;
  const { hiddenSize, headSize } = weights;
  const kept = new Float64Array(hiddenSize * headSize);
  let total = 0;
  for (const name of matrices) {
    const alone = await hosvd(weights, { ...options, balance: false, matrices: [name] }, ops);
    // The hidden mode's unfolding of one matrix is the matrix itself.
    const norm2 = alone.singularValues.hidden.reduce((sum, value) => sum + value ** 2, 0);
    total += norm2;
    for (let i = 0; i < kept.length; i++) kept[i]! += alone.errors.kept[i]! * norm2;
  }
  const shares = total === 0 ? kept.fill(1) : kept.map((sum) => sum / total);
  return { ...tables, tucker3: new ErrorTable([hiddenSize, headSize, 1], shares) };
}
