/**
 * From each layer's plan to its task: ranks that are given stay, the others are chosen from the layers' error tables.
 *
 * @module
 */
import {
  chooseMode,
  type ModeTables,
  type RankChoice,
  ranksForEnergy,
  ranksForGlobalRatio,
  ranksForRatio,
} from "../tucker/mod.ts";
import type { LayerTask } from "./layer_task.ts";
import type { CompressionOptions, CompressionTarget } from "./options.ts";
import { type LayerPlan, tensorShape } from "./plan.ts";
import { TuckerdError } from "../errors.ts";
import type { LayerSpectrum } from "./spectrum_file.ts";

/** Gives the spectra of layers, with the error tables of all modes if `allModes`. */
export type SpectrumSource = (layers: readonly number[], allModes: boolean) => Promise<readonly LayerSpectrum[]>;

type Choice = Pick<LayerTask, "mode" | "ranks" | "rank">;
type FreeTarget = Exclude<CompressionTarget, { kind: "ranks" }>;
/** A layer whose ranks are to be chosen. */
interface FreePlan extends LayerPlan {
  readonly target: FreeTarget;
}

/**
 * One task for each layer that is decomposed. Tables are asked for only where ranks have to be chosen.
 *
 * @throws TuckerdError `invalid` where no ranks reach the target
 */
export async function chooseLayerTasks(
  plans: readonly LayerPlan[],
  options: CompressionOptions,
  spectra: SpectrumSource,
): Promise<LayerTask[]> {
  const free = plans.filter((plan): plan is FreePlan => plan.target !== undefined && plan.target.kind !== "ranks");
  const chosen = await chooseFree(free, options, spectra);
  const { layout, balance } = options;
  return plans.flatMap((plan): LayerTask[] => {
    const { block, mode, target } = plan;
    if (target === undefined) return [];
    const choice = target.kind === "ranks" ? given(plan, target.ranks) : chosen.get(block.layer);
    if (choice === undefined) throw new TypeError(`layer ${block.layer} (${mode}) got no ranks`);
    return [{ layer: block.layer, layout, balance, ...choice }];
  });
}

function given({ block, mode }: LayerPlan, ranks: readonly [number, number, number]): Choice {
  if (mode === "4d-tucker" || mode === "3d-tucker") return { mode, ranks: [...ranks] };
  throw new TuckerdError(
    "invalid",
    `layer ${block.layer}: mode "${mode}" doesn't take ranks r1,r2,r3; give an energy or a compression ratio`,
  );
}

async function chooseFree(
  plans: readonly FreePlan[],
  { mode, target, budget }: CompressionOptions,
  spectra: SpectrumSource,
): Promise<ReadonlyMap<number, Choice>> {
  if (plans.length === 0) return new Map();
  const tables = await spectra(plans.map(({ block }) => block.layer), mode !== "4d-tucker");
  if (mode === "4d-tucker" && budget === "global" && target.kind === "ratio") {
    const layers = plans.map(({ block }, i) => ({ errors: tables[i]!.errors, shape: tensorShape(block) }));
    return new Map(
      ranksForGlobalRatio(layers, target.ratio).map((choice, i) => [plans[i]!.block.layer, tucker(choice)]),
    );
  }
  return new Map(plans.map((plan, i) => [plan.block.layer, chooseOne(plan, tables[i]!)]));
}

function chooseOne({ block, mode, target }: FreePlan, { errors, modes }: LayerSpectrum): Choice {
  if (mode === "4d-tucker") {
    const layer = { errors, shape: tensorShape(block) };
    return tucker(target.kind === "energy" ? ranksForEnergy(layer, target.energy) : ranksForRatio(layer, target.ratio));
  }
  const tables: ModeTables = { shape: tensorShape(block), tucker4: errors, ...modes! };
  const { mode: best, ranks, rank } = chooseMode(tables, target, mode === "auto" ? undefined : [mode]);
  return { mode: best, ...(ranks === undefined ? {} : { ranks: [...ranks] }), ...(rank === undefined ? {} : { rank }) };
}

function tucker({ ranks }: RankChoice): Choice {
  return { mode: "4d-tucker", ranks: [...ranks] };
}
