/**
 * What a compression is asked to do, by the names of the command line and the HTTP contract.
 *
 * @module
 */
import { z } from "zod";
import type { MatrixName } from "../attention/types.ts";
import type { Algorithm, Budget, LaserName } from "../config.ts";
import { TuckerdError } from "../errors.ts";
import type { Layout, Mode, Ranks } from "../tucker/types.ts";
import type { ModelFolder } from "./model_folder.ts";

/**
 * How small a layer is made: by ranks, by the energy kept (1 − relative error²), by the ratio of parameters, or by LASER's
 * rate ρ in [0, 10), for which a matrix's rank is int(min(m, n)·(10 − ρ)/10).
 */
export type CompressionTarget =
  | { readonly kind: "ranks"; readonly ranks: Ranks }
  | { readonly kind: "energy"; readonly energy: number }
  | { readonly kind: "ratio"; readonly ratio: number }
  | { readonly kind: "rate"; readonly rate: number };

/** One layer's exception. */
export interface LayerOverride {
  readonly ranks?: Ranks;
  readonly skip?: boolean;
}

/** LASER's part of a request. */
export interface LaserRequest {
  /** Matrices and groups of them; by default `attention` in mode `laser`, and `ffn` in mode `4d-tucker-laser`. */
  readonly matrices?: readonly LaserName[];
  /** ρ; in mode `laser` it takes the place of an energy or a ratio, in `4d-tucker-laser` it is for the feed-forward matrices. */
  readonly rate?: number;
}

/** Which matrices are truncated, and how far. */
export interface LaserOptions {
  readonly matrices: readonly LaserName[];
  readonly target: Exclude<CompressionTarget, { readonly kind: "ranks" }>;
}

/** A compression as users ask for it; every absent field has the default of `resolveOptions`. */
export interface CompressionRequest {
  readonly ranks?: Ranks;
  readonly energy?: number;
  readonly compressionRatio?: number;
  readonly mode?: Mode;
  /** How 4-D Tucker factors are found: `hooi` (default), or `hosvd`, sliced from full ones that are kept. */
  readonly algorithm?: Algorithm;
  readonly layout?: Layout;
  readonly balance?: boolean;
  /** `all`, or a list such as `0,2-5`. */
  readonly layers?: string;
  /** What an energy or a ratio holds for: `layer` (each one, default) or `global` (all together, the ranks where they help most). */
  readonly budget?: Budget;
  /** What mode `3d-tucker` decomposes; all four by default. */
  readonly matrices?: readonly MatrixName[];
  readonly laser?: LaserRequest;
  readonly overrides?: Readonly<Record<string, LayerOverride>>;
}

/** A compression with every default filled in. */
export interface CompressionOptions {
  readonly mode: Mode;
  readonly algorithm: Algorithm;
  readonly layout: Layout;
  readonly balance: boolean;
  readonly layers: string;
  readonly target: CompressionTarget;
  readonly budget: Budget;
  /** What mode `3d-tucker` decomposes; undefined for all four. */
  readonly matrices: readonly MatrixName[] | undefined;
  /** Set in the modes `laser` and `4d-tucker-laser`. */
  readonly laser: LaserOptions | undefined;
  readonly overrides: ReadonlyMap<number, LayerOverride>;
}

/** LASER's rate on feed-forward matrices where mode `4d-tucker-laser` names none: a quarter of the ranks. */
export const DEFAULT_LASER_RATE = 7.5;

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
  const mode = request.mode ?? "4d-tucker";
  // Recommended ranks are r1,r2,r3: nothing that the modes without those could use.
  const target = targetOf(request) ?? (takesRanks(mode) ? recommended : undefined) ?? fallbackTarget;
  checkMode(mode, request, target);
  const overrides = new Map<number, LayerOverride>();
  for (const [layer, override] of Object.entries(request.overrides ?? {})) {
    if (!/^\d+$/.test(layer)) {
      throw new TuckerdError("invalid", `overrides: "${layer}" isn't a layer number; use "0", "1" and so on`);
    }
    overrides.set(Number(layer), override);
  }
  return {
    mode,
    algorithm: request.algorithm ?? "hooi",
    layout: request.layout ?? "heads",
    balance: request.balance ?? false,
    layers: request.layers ?? "all",
    target,
    budget: request.budget ?? "layer",
    matrices: request.matrices,
    laser: laserOf(mode, request.laser, target),
    overrides,
  };
}

/**
 * A request with what an earlier one asked for filled in where it says nothing. A target of its own (ranks, energy, ratio, or LASER's
 * rate in mode `laser`) replaces the earlier one, and what has no meaning in its mode is not taken over.
 */
export function inheritRequest(earlier: CompressionRequest, request: CompressionRequest): CompressionRequest {
  const mode = request.mode ?? earlier.mode ?? "4d-tucker";
  const sameMode = mode === (earlier.mode ?? "4d-tucker");
  const { ranks, energy, compressionRatio, laser, matrices, algorithm, ...plain } = earlier;
  const ownTarget = targetOf(request) !== undefined || (mode === "laser" && request.laser?.rate !== undefined);
  const target = {
    ...(ranks === undefined || !takesRanks(mode) ? {} : { ranks }),
    ...(energy === undefined ? {} : { energy }),
    ...(compressionRatio === undefined ? {} : { compressionRatio }),
  };
  const { rate, ...choice } = sameMode ? laser ?? {} : {};
  const ownRate = rate === undefined || (mode === "laser" && ownTarget) ? {} : { rate };
  const merged = { ...choice, ...ownRate, ...request.laser };
  return {
    ...plain,
    ...(ownTarget || mode === "none" ? {} : target),
    ...(matrices === undefined || !sameMode ? {} : { matrices }),
    ...(algorithm === undefined || !takesAlgorithm(mode) ? {} : { algorithm }),
    ...request,
    ...(Object.keys(merged).length === 0 ? {} : { laser: merged }),
  };
}

function takesRanks(mode: Mode): boolean {
  return mode !== "laser" && mode !== "auto";
}

function takesAlgorithm(mode: Mode): boolean {
  return mode === "4d-tucker" || mode === "4d-tucker-laser";
}

function takesLaser(mode: Mode): boolean {
  return mode === "laser" || mode === "4d-tucker-laser";
}

/** Options that have no meaning in a mode are refused, rather than left without effect. */
function checkMode(mode: Mode, request: CompressionRequest, target: CompressionTarget): void {
  const refuse = (what: string, todo: string): never => {
    throw new TuckerdError("invalid", `mode "${mode}" ${what}; ${todo}`, { fields: { mode } });
  };
  if (target.kind === "ranks" && !takesRanks(mode)) {
    refuse("doesn't take ranks r1,r2,r3", "give an energy or a compression ratio");
  }
  if (request.laser !== undefined && !takesLaser(mode)) {
    refuse("truncates no single matrices", 'leave laser out, or use mode "laser" or "4d-tucker-laser"');
  }
  if (request.algorithm === "hosvd" && !takesAlgorithm(mode)) {
    refuse("has no full HOSVD to slice", 'leave algorithm out, or use mode "4d-tucker" or "4d-tucker-laser"');
  }
  if (request.matrices !== undefined && mode !== "3d-tucker") {
    refuse("takes no choice of matrices", 'leave matrices out, or use mode "3d-tucker" (for "laser": laser.matrices)');
  }
  if (mode === "laser" && request.laser?.rate !== undefined && targetOf(request) !== undefined) {
    refuse(
      `takes a rate or ${target.kind === "energy" ? "an energy" : "a ratio"}, not both`,
      "leave one of the two out",
    );
  }
}

function laserOf(mode: Mode, request: LaserRequest | undefined, target: CompressionTarget): LaserOptions | undefined {
  if (!takesLaser(mode)) return undefined;
  const rate = request?.rate;
  if (rate !== undefined && !(rate >= 0 && rate < 10)) {
    throw new TuckerdError("invalid", `LASER's rate must be at least 0 and below 10, got ${rate}`);
  }
  if (mode === "4d-tucker-laser") {
    const matrices = request?.matrices ?? ["ffn"];
    const fault = matrices.find((name) => name !== "ffn" && !name.startsWith("fc_"));
    if (fault !== undefined) {
      throw new TuckerdError(
        "invalid",
        `mode "4d-tucker-laser" truncates feed-forward matrices (ffn, fc_in, fc_up, fc_out), since its attention is decomposed by Tucker; ` +
          `leave ${fault} out, or use mode "laser"`,
      );
    }
    return { matrices, target: { kind: "rate", rate: rate ?? DEFAULT_LASER_RATE } };
  }
  if (target.kind === "ranks") throw new TypeError('mode "laser" got ranks r1,r2,r3');
  return {
    matrices: request?.matrices ?? ["attention"],
    target: rate === undefined ? target : { kind: "rate", rate },
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
