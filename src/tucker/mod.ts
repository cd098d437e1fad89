/**
 * Tucker decomposition of attention weights: ranks, decomposition, reconstruction, folding into a graph's tensors.
 *
 * @module
 */
export { createCpuOps } from "./cpu_ops.ts";
export { decomposeLayer, type DecomposeOptions } from "./decompose.ts";
export { ErrorTable, type ModeSizes } from "./error_table.ts";
export { type FoldedTensor, foldFactors } from "./fold.ts";
export { type Hosvd, hosvd, type HosvdOptions, type ModeSpectra, truncateHosvd } from "./hosvd.ts";
export {
  type DenseMatrix,
  laserRank,
  lowRankSaves,
  type MatrixDecomposition,
  type MatrixPlace,
  truncatedSvd,
} from "./low_rank.ts";
export {
  chooseMode,
  chooseModes,
  type ModeChoice,
  type ModeTables,
  modeTables,
  type ModeTarget,
} from "./mode_choice.ts";
export { ranksForGlobalEnergy, ranksForGlobalRatio } from "./global_budget.ts";
export { type RankChoice, type RankedLayer, ranksForEnergy, ranksForRatio } from "./rank_choice.ts";
export * from "./ranks.ts";
export { reconstruct, reconstructionErrors } from "./reconstruct.ts";
export type { LayerPlace } from "./tensorise.ts";
export { trialSeconds } from "./trial.ts";
