/**
 * What a compression is asked to do, by the names of the command line and the HTTP contract.
 *
 * @module
 */
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import type { Layout, Mode, Ranks } from "../tucker/types.ts";
import type { ModelFolder } from "./model_folder.ts";

/** How small a layer is made: by ranks, by the energy kept (1 − relative error²), or by the ratio of parameters. */
export type CompressionTarget =
  | { readonly kind: "ranks"; readonly ranks: Ranks }
  | { readonly kind: "energy"; readonly energy: number }
  | { readonly kind: "ratio"; readonly ratio: number };

/** What a compression ratio holds for: every layer alone, or all of them together. */
export type Budget = "layer" | "global";

/** One layer's exception. */
export interface LayerOverride {
  readonly ranks?: Ranks;
  readonly skip?: boolean;
}

/** LASER's own choice of matrices and its rate ρ in (0, 10): the rank is int(min(m, n)·(10 − ρ)/10). */
export interface LaserOptions {
  readonly matrices: readonly string[];
  readonly rate: number;
}

/** A compression as users ask for it; every absent field has the default of `resolveOptions`. */
export interface CompressionRequest {
  readonly ranks?: Ranks;
  readonly energy?: number;
  readonly compressionRatio?: number;
  readonly mode?: Mode;
  readonly layout?: Layout;
  readonly balance?: boolean;
  /** `all`, or a list such as `0,2-5`. */
  readonly layers?: string;
  /** What a ratio holds for: `layer` (each one, default) or `global` (all together, the ranks where they help most). */
  readonly budget?: Budget;
  readonly laser?: LaserOptions;
  readonly overrides?: Readonly<Record<string, LayerOverride>>;
}

/** A compression with every default filled in. */
export interface CompressionOptions {
  readonly mode: Mode;
  readonly layout: Layout;
  readonly balance: boolean;
  readonly layers: string;
  readonly target: CompressionTarget;
  readonly budget: Budget;
  readonly laser: LaserOptions | undefined;
  readonly overrides: ReadonlyMap<number, LayerOverride>;
}

/** Used where neither the user nor the model's config.json names a target. */
const fallbackTarget: CompressionTarget = { kind: "ratio", ratio: 4 };

const Recommendation = z.object({ tuckerd: z.object({ ranks: z.tuple([z.int(), z.int(), z.int()]) }) });

/** The ranks that a model recommends for itself: `"tuckerd": {"ranks": [r1, r2, r3]}` in its config.json. */
export function recommendedTarget(folder: ModelFolder): CompressionTarget | undefined {
  const { data } = Recommendation.safeParse(folder.config);
  return data === undefined ? undefined : { kind: "ranks", ranks: data.tuckerd.ranks };
}

/**
 * Fills in defaults and checks what can be checked without the model.
 *
 * @param request what the user asked for
 * @param recommended the model's own default, where it has one
 * @throws TuckerdError `invalid` naming the field, the rule and the value
 */
export function resolveOptions(request: CompressionRequest, recommended?: CompressionTarget): CompressionOptions {
  const target = targetOf(request) ?? recommended ?? fallbackTarget;
  const overrides = new Map<number, LayerOverride>();
  for (const [layer, override] of Object.entries(request.overrides ?? {})) {
    if (!/^\d+$/.test(layer)) {
      throw new TuckerdError("invalid", `overrides: "${layer}" isn't a layer number; use "0", "1" and so on`);
    }
    overrides.set(Number(layer), override);
  }
  return {
    mode: request.mode ?? "4d-tucker",
    layout: request.layout ?? "heads",
    balance: request.balance ?? false,
    layers: request.layers ?? "all",
    target,
    budget: request.budget ?? "layer",
    laser: request.laser,
    overrides,
  };
}

function targetOf(request: CompressionRequest): CompressionTarget | undefined {
  const given: CompressionTarget[] = [];
  if (request.ranks !== undefined) given.push({ kind: "ranks", ranks: request.ranks });
  if (request.energy !== undefined) given.push({ kind: "energy", energy: request.energy });
  if (request.compressionRatio !== undefined) given.push({ kind: "ratio", ratio: request.compressionRatio });
  if (given.length > 1) {
    throw new TuckerdError(
      "invalid",
      `give one of ranks, energy and compressionRatio, not ${given.length}: ${
        given.map((target) => target.kind).join(", ")
      }`,
    );
  }
  const target = given[0];
  if (target?.kind === "energy" && !(target.energy > 0 && target.energy <= 1)) {
    throw new TuckerdError("invalid", `energy must be above 0 and at most 1 (the share kept), got ${target.energy}`);
  }
  if (target?.kind === "ratio" && !(target.ratio >= 1 && Number.isFinite(target.ratio))) {
    throw new TuckerdError("invalid", `compressionRatio must be a number of 1 or more, got ${target.ratio}`);
  }
  if (target?.kind === "ranks" && !target.ranks.every((rank) => Number.isInteger(rank) && rank >= 1)) {
    throw new TuckerdError(
      "invalid",
      `ranks must be three whole numbers of 1 or more, got [${target.ranks.join(", ")}]`,
    );
  }
  return target;
}
