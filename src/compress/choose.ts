/**
 * From each layer's plan to its tasks: ranks that are given stay, the others are chosen from error tables and singular values.
 *
 * @module
 */
import type { FeedForwardMatrixName } from "../attention/feed_forward/types.ts";
import { MATRICES, type MatrixName } from "../attention/types.ts";
import {
  chooseMode,
  chooseModes,
  layerParameters,
  type ModeChoice,
  type ModeTables,
  type RankChoice,
  ranksForEnergy,
  ranksForGlobalEnergy,
  ranksForGlobalRatio,
  ranksForRatio,
} from "../tucker/mod.ts";
import { rankByEnergy, rankBySize, type RankedMatrix, ranksTogether } from "./laser_ranks.ts";
import type { LayerTask, MatrixTask } from "./layer_task.ts";
import { isAttentionMatrix, type LayerMatrix, storedShape } from "./matrices.ts";
import type { CompressionOptions } from "./options.ts";
import { type LayerPlan, tensorShape } from "./plan.ts";
import type { LayerSpectrum } from "./spectrum_file.ts";

/** Gives what ranks are chosen from. */
export interface SpectrumSource {
  /** Spectra of layers, with the error tables of all modes if `allModes`. */
  layers(layers: readonly number[], allModes: boolean): Promise<readonly LayerSpectrum[]>;
  /** Singular values of single matrices. */
  matrices(matrices: readonly LayerMatrix[]): Promise<readonly ArrayLike<number>[]>;
}

/** What is to be decomposed. */
export interface ChosenTasks {
  readonly layers: readonly LayerTask[];
  readonly matrices: readonly MatrixTask[];
}

type Choice = Pick<LayerTask, "mode" | "ranks" | "matrixRanks">;
type Target = NonNullable<LayerPlan["target"]>;
/** A layer whose ranks are to be chosen. */
interface FreePlan extends LayerPlan {
  readonly target: Exclude<Target, { readonly kind: "ranks" }>;
}

/**
 * The tasks of all layers. Tables and singular values are asked for only where ranks have to be chosen.
 *
 * @throws TuckerdError `invalid` where no ranks reach the target
 */
export async function chooseTasks(
  plans: readonly LayerPlan[],
  options: CompressionOptions,
  spectra: SpectrumSource,
): Promise<ChosenTasks> {
  const free = plans.filter((plan): plan is FreePlan => plan.target !== undefined && plan.target.kind !== "ranks");
  const chosen = await chooseFree(free, options, spectra);
  const truncated = await rankMatrices(plans.flatMap((plan) => plan.truncated), options, spectra);
  const { layout, balance, algorithm } = options;
  const layers = plans.flatMap((plan): LayerTask[] => {
    const { layer } = plan.block;
    const choice = plan.target?.kind === "ranks"
      ? given(plan, plan.target.ranks, options)
      : chosen.get(layer) ?? attentionTruncation(truncated, layer);
    if (choice === undefined) return [];
    const sliced = algorithm === "hosvd" && choice.mode === "4d-tucker";
    return [{ task: "layer", layer, layout, balance, ...(sliced ? { algorithm } : {}), ...choice }];
  });
  return { layers, matrices: truncated.flatMap(feedForwardTask) };
}

/** Ranks that the user gave; `4d-tucker-laser` is `4d-tucker` as far as attention goes. */
function given({ mode }: LayerPlan, ranks: RankChoice["ranks"], { matrices }: CompressionOptions): Choice {
  if (mode !== "3d-tucker") return tucker({ ranks });
  return { mode, ranks: [...ranks], ...(matrices === undefined ? {} : { matrices }) };
}

async function chooseFree(
  plans: readonly FreePlan[],
  { mode, target, budget, matrices }: CompressionOptions,
  spectra: SpectrumSource,
): Promise<ReadonlyMap<number, Choice>> {
  if (plans.length === 0) return new Map();
  const alone = mode === "3d-tucker" || mode === "auto";
  const tables = await spectra.layers(plans.map(({ block }) => block.layer), alone);
  // Factors that would be larger than the weights are none: such a layer keeps its own, which lose nothing.
  const saves = (parameters: number, i: number): boolean =>
    parameters < layerParameters(tensorShape(plans[i]!.block)) || (target.kind === "ratio" && budget === "layer");
  const byLayer = (choices: readonly (Choice & { readonly parameters: number })[]): Map<number, Choice> =>
    new Map(
      choices.flatMap(({ parameters, ...choice }, i) => saves(parameters, i) ? [[plans[i]!.block.layer, choice]] : []),
    );
  if (alone) {
    const subset = mode === "auto" || matrices === undefined ? {} : { matrices };
    const ofModes = plans.map(({ block }, i): ModeTables => ({
      shape: tensorShape(block),
      tucker4: tables[i]!.errors,
      ...tables[i]!.modes!,
    }));
    const allowed = mode === "auto" ? undefined : ["3d-tucker" as const];
    const best = budget === "global"
      ? chooseModes(ofModes, plans[0]!.target, allowed)
      : plans.map((plan, i) => chooseMode(ofModes[i]!, plan.target, allowed));
    return byLayer(best.map((choice, i) => ({ ...ownFactors(plans[i]!, choice), ...subset })));
  }
  const layers = plans.map(({ block }, i) => ({ errors: tables[i]!.errors, shape: tensorShape(block) }));
  if (budget === "global") {
    const choices = target.kind === "energy"
      ? ranksForGlobalEnergy(layers, target.energy)
      : ranksForGlobalRatio(layers, (target as { ratio: number }).ratio);
    return byLayer(choices.map((choice) => ({ ...tucker(choice), parameters: choice.parameters })));
  }
  return byLayer(plans.map(({ target }, i) => {
    const choice = target.kind === "energy"
      ? ranksForEnergy(layers[i]!, target.energy)
      : ranksForRatio(layers[i]!, target.ratio);
    return { ...tucker(choice), parameters: choice.parameters };
  }));
}

/** What a choice of mode `3d-tucker` or `auto` means for a layer. */
function ownFactors({ block }: FreePlan, best: ModeChoice): Choice & { readonly parameters: number } {
  const { parameters } = best;
  if (best.ranks !== undefined) return { mode: best.mode, ranks: [...best.ranks], parameters };
  const matrixRanks = MATRICES.map((name): [MatrixName, number] => [
    name,
    Math.min(best.rank!, ...storedShape(block, name)),
  ]);
  return { mode: best.mode, matrixRanks: Object.fromEntries(matrixRanks), parameters };
}

async function rankMatrices(
  matrices: readonly LayerMatrix[],
  { laser, budget }: CompressionOptions,
  spectra: SpectrumSource,
): Promise<readonly RankedMatrix[]> {
  if (laser === undefined || matrices.length === 0) return [];
  const { target } = laser;
  const together = budget === "global" && target.kind !== "rate";
  if (target.kind !== "energy" && !together) {
    return matrices.map((matrix) => ({ matrix, rank: rankBySize(matrix, target) }));
  }
  const values = await spectra.matrices(matrices);
  if (together) return ranksTogether(matrices.map((matrix, i) => ({ matrix, values: values[i]! })), target);
  if (target.kind !== "energy") throw new TypeError("ranks by size were handled above");
  return matrices.map((matrix, i) => ({ matrix, rank: rankByEnergy(values[i]!, target.energy) }));
}

/** The truncated attention matrices of a layer, as one task. */
function attentionTruncation(truncated: readonly RankedMatrix[], layer: number): Choice | undefined {
  const own = truncated.filter(({ matrix }) => matrix.layer === layer && isAttentionMatrix(matrix.matrix));
  if (own.length === 0) return undefined;
  return { mode: "laser", matrixRanks: Object.fromEntries(own.map(({ matrix, rank }) => [matrix.matrix, rank])) };
}

function feedForwardTask({ matrix: { layer, index, matrix }, rank }: RankedMatrix): MatrixTask[] {
  if (isAttentionMatrix(matrix)) return [];
  const name: FeedForwardMatrixName = matrix;
  return [{ task: "matrix", layer, index, matrix: name, rank }];
}

function tucker({ ranks }: Pick<RankChoice, "ranks">): Choice {
  return { mode: "4d-tucker", ranks: [...ranks] };
}
