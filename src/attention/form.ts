/**
 * How a block can run after a decomposition, and which factor tensors that takes.
 *
 * @module
 */
import type {
  AttentionBlock,
  BlockForm,
  CachedName,
  FactorRole,
  FactorSlot,
  MatrixName,
  ProjectionForm,
} from "./types.ts";
import { MATRICES } from "./types.ts";

/** Kinds of decomposition, as in `LayerFactors`. */
export type FactorKind = "tucker4" | "tucker3" | "low-rank";

/** What a form depends on besides block and kind. */
export interface FormOptions {
  /** Matrices that are decomposed (`tucker3`, `low-rank`); all four by default. The others stay as they are. */
  readonly matrices?: readonly MatrixName[];
  /**
   * Rank of the stack mode (`tucker4`). At 4 the repeats of grouped key and value heads stay equal and run once per group;
   * below, or where it isn't given, every head has its own.
   */
  readonly r3?: number;
  /**
   * `full` (default): a cache keeps the model's own shapes, so what is cached runs expanded. `compressed`: it holds r2
   * numbers per head of what may run reduced.
   */
  readonly cache?: "full" | "compressed";
}

/**
 * The form in which a block runs factored: query and key, value and output in r2 numbers per head wherever the block
 * allows it. `low-rank` has no r2: two matrices for each projection, and the graph's own nodes around them.
 */
export function chooseForm(block: AttentionBlock, kind: FactorKind, options: FormOptions = {}): BlockForm {
  const chosen = kind === "tucker4" ? MATRICES : options.matrices ?? MATRICES;
  const form = (name: MatrixName): ProjectionForm =>
    !chosen.includes(name) ? "kept" : kind === "tucker4" ? "shared" : "pair";
  const fullCache = block.cacheNumbersPerToken > 0 && options.cache !== "compressed";
  const space = (because: string | undefined, parts: readonly MatrixName[]): "reduced" | "expanded" =>
    kind !== "low-rank" && !fullCache && because === undefined && parts.every((name) => chosen.includes(name))
      ? "reduced"
      : "expanded";
  const queryKey = space(block.queryKeyExpandedBecause, ["query", "key"]);
  // The output's own subspace, where that is smaller, would shorten values before their norm.
  const shortened = block.valueNormed && kind !== "tucker4";
  const valueOutput = shortened ? "expanded" : space(block.valueOutputExpandedBecause, ["value", "output"]);
  // Only the shared subspace gives keys and values the same r2.
  const apart = block.oneHeadSize && (kind !== "tucker4" || queryKey !== valueOutput);
  return {
    query: form("query"),
    key: form("key"),
    value: form("value"),
    output: form("output"),
    queryKey: apart ? "expanded" : queryKey,
    valueOutput: apart ? "expanded" : valueOutput,
    keyValueHeads: kind === "tucker4" && options.r3 !== 4 ? block.heads : block.keyValueHeads,
  };
}

/** Numbers that one token takes in the cache: as z, and as keys or values of all heads. */
export interface CacheSizes {
  readonly latent: number;
  readonly perHead: number;
}

/**
 * Which of key and value are smaller in the cache as z. One z serves both where they share the first factor, so it is
 * compared with both together: r1 < 2·G·r2.
 *
 * @param rotated whether keys that are rotated may be; what their rotation takes isn't counted
 */
export function chooseLatent(
  block: AttentionBlock,
  form: BlockForm,
  { sizes, rotated }: { readonly sizes: (name: CachedName) => CacheSizes; readonly rotated: boolean },
): readonly CachedName[] {
  if (block.cacheNumbersPerToken === 0 || block.noLatentCacheBecause !== undefined) return [];
  const able = (["key", "value"] as const).filter((name) =>
    canBeLatent(block, form, name) && (rotated || isReduced(form, name))
  );
  const shared = able.filter((name) => form[name] === "shared");
  const perHead = shared.reduce((sum, name) => sum + sizes(name).perHead, 0);
  return able.filter((name) =>
    form[name] === "shared" ? sizes(name).latent < perHead : sizes(name).latent < sizes(name).perHead
  );
}

/**
 * The form with one output matrix where that is no larger than two: a context of H·ρ numbers is projected with H·ρ × d numbers,
 * or with (H·ρ + d) × r. Small contexts don't need the detour through r.
 *
 * @param outputA sizes of the factor `output.a`, H·ρ × r
 */
export function withMergedOutput(
  form: BlockForm,
  [width, inner]: readonly [width: number, inner: number],
  hiddenSize: number,
): BlockForm {
  const two = form.valueOutput === "reduced" && (form.output === "shared" || form.output === "pair");
  return two && width * hiddenSize <= (width + hiddenSize) * inner ? { ...form, output: "dense" } : form;
}

/**
 * Whether z can stand for key or value: both come from two factors; values run reduced, without a bias or norm of their own; keys run
 * reduced, or it is known how the graph rotates them, and what norms them has heads of r2 numbers before it.
 */
export function canBeLatent(block: AttentionBlock, form: BlockForm, name: CachedName): boolean {
  const { keyRotation } = block;
  const able = name === "key"
    ? isReduced(form, name) || (keyRotation !== undefined && canBeNormed(block, form))
    : isReduced(form, name) && block.valueBiasInside !== true && block.valueNormed !== true;
  // One tensor for both holds one z.
  const one = !block.oneHeadSize || (isReduced(form, name) && !headSizesDiffer(form));
  return able && one && (form[name] === "shared" || form[name] === "pair");
}

/** Whether keys from z can go through the graph's norm, where there is one. */
function canBeNormed({ keyRotation, keyValueHeads }: AttentionBlock, form: BlockForm): boolean {
  const normed = keyRotation?.normed;
  return normed === undefined ||
    (form.key === "shared" && (normed === "by head" || form.keyValueHeads === keyValueHeads));
}

/**
 * Layers that keep the coefficients of rotated keys besides z: of those that are rotated alike the first, for all.
 *
 * @param blocks by layer
 */
export function coefficientKeepers(
  blocks: readonly AttentionBlock[],
  forms: ReadonlyMap<number, BlockForm>,
): ReadonlySet<number> {
  const first = new Map<string, number>();
  for (const { layer, keyRotation } of blocks) {
    const form = forms.get(layer);
    const group = form !== undefined && makesKeys(form) ? keyRotation?.group ?? "" : "";
    if (group !== "" && !first.has(group)) first.set(group, layer);
  }
  return new Set(first.values());
}

/** Whether keys of full size are made from z. */
export function makesKeys(form: BlockForm): boolean {
  return isLatent(form, "key") && !isReduced(form, "key");
}

/** Whether key or value runs in r2 numbers per head. */
export function isReduced(form: BlockForm, name: CachedName): boolean {
  return (name === "key" ? form.queryKey : form.valueOutput) === "reduced";
}

/** Whether heads of keys and values may have different sizes: two spaces, or two of their own. */
export function headSizesDiffer({ queryKey, valueOutput, key, value }: BlockForm): boolean {
  return queryKey !== valueOutput || (queryKey === "reduced" && !(key === "shared" && value === "shared"));
}

/** Whether the cache of key or value holds z. */
export function isLatent(form: BlockForm, name: CachedName): boolean {
  return form.latent?.includes(name) ?? false;
}

/** A text that is equal for forms that give the same graph: the key under which sessions are shared. */
export function structureKey(forms: ReadonlyMap<number, BlockForm>): string {
  return [...forms].sort(([a], [b]) => a - b).map(([layer, form]) =>
    [
      layer,
      form.query,
      form.key,
      form.value,
      form.output,
      form.queryKey,
      form.valueOutput,
      form.keyValueHeads,
      ...form.latent ?? [],
    ].join(":")
  ).join(";");
}

/** Which biases a block has: a reduced block takes them as factors. */
export interface BiasPresence {
  readonly query: boolean;
  /** Whether values carry theirs. */
  readonly value: boolean;
  readonly output: boolean;
}

/** The factor tensors that a block of that form takes, in a fixed order. Ranks are symbolic: `layer0.r1`. */
export function slotsOf(block: AttentionBlock, form: BlockForm, biases: BiasPresence): FactorSlot[] {
  const { layer, hiddenSize: d, headSize: h, heads } = block;
  const rank = (name: string): string => `layer${layer}.${name}`;
  const slots: FactorSlot[] = [];
  const add = (role: FactorRole, ...shape: (number | string)[]): void => {
    slots.push({ layer, role, name: `tuckerd.layer${layer}.${role}`, shape });
  };
  const shared = [form.query, form.key, form.value].includes("shared");
  if (shared) add("down", d, rank("r1"));
  for (const name of ["query", "key", "value"] as const) {
    const reduced = (name === "value" ? form.valueOutput : form.queryKey) === "reduced";
    const small = reduced ? rank(name === "value" ? "value.r2" : "key.r2") : rank("r2");
    const count = name === "query" ? heads : form.keyValueHeads;
    const width = reduced || form[name] === "shared" ? `${count}*${small}` : count * h;
    if (form[name] === "shared") {
      add(`${name}.b`, rank("r1"), width);
      if (!reduced) add(`${name}.expand`, rank("r2"), h);
    } else if (form[name] === "pair") {
      add(`${name}.a`, d, rank(`${name}.r`));
      add(`${name}.b`, rank(`${name}.r`), width);
    } else if (form[name] === "dense") {
      add(`${name}.b`, d, width);
    }
    if (name !== "key" && reduced && biases[name]) add(`${name}.bias`, width);
  }
  const reduced = form.valueOutput === "reduced";
  const width = reduced
    ? `${heads}*${rank("value.r2")}`
    : form.output === "shared"
    ? `${heads}*${rank("r2")}`
    : heads * h;
  if (form.output === "shared") {
    if (!reduced) add("output.reduce", h, rank("r2"));
    add("output.a", width, rank("r1"));
    add("up", rank("r1"), d);
  } else if (form.output === "pair") {
    add("output.a", width, rank("output.r"));
    add("output.b", rank("output.r"), d);
  } else if (form.output === "dense") {
    add("output.dense", width, d);
  }
  if (reduced && biases.output) add("output.bias", d);
  return slots;
}
