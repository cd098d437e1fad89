/**
 * What a decoder's layers keep for later tokens once they run on factors, and where the latent z is smaller than numbers per
 * head. What rotated keys need besides z is kept once by all layers that are rotated alike, so those are looked at together.
 *
 * @module
 */
import {
  type AttentionBlock,
  type BlockForm,
  chooseLatent,
  coefficientKeepers,
  type FactorSlot,
  isReduced,
  makesKeys,
} from "../attention/mod.ts";
import type { CachedName } from "../attention/types.ts";
import type { CacheLayout, CachePart } from "./artifact.ts";

/** One layer's form and the shapes of its factor tensors, by the names that the graph has for them. */
export interface FoldedLayer {
  readonly block: AttentionBlock;
  readonly form: BlockForm;
  readonly slots: readonly FactorSlot[];
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

/**
 * The layers with z in their caches where that takes fewer numbers, counting what rotated keys need besides. Their factor tensors are
 * the same.
 */
export function withLatent<Layer extends FoldedLayer>(layers: readonly Layer[]): Layer[] {
  const gains = new Map<string, number>();
  const choices = layers.map((layer) => {
    const plain = choose(layer, false);
    const best = choose(layer, true);
    const { group = "", coefficients = 0 } = layer.block.keyRotation ?? {};
    if (!makesKeys(best.form)) return { plain, best, group: undefined };
    const gain = cacheNumbers(cacheLayout(plain, 0)) - cacheNumbers(cacheLayout(best, 0));
    gains.set(group, (gains.get(group) ?? -coefficients) + gain);
    return { plain, best, group };
  });
  return choices.map(({ plain, best, group }) => group === undefined || gains.get(group)! > 0 ? best : plain);
}

/** What the layers with a cache keep in a graph that runs their factors, by layer. */
export function cacheLayouts(layers: readonly FoldedLayer[]): ReadonlyMap<number, CacheLayout> {
  const blocks = layers.map(({ block }) => block);
  const keepers = coefficientKeepers(blocks, new Map(layers.map(({ block, form }) => [block.layer, form])));
  return new Map(
    layers.filter(({ block }) => block.cacheNumbersPerToken > 0).map((layer) => {
      const { layer: number, keyRotation } = layer.block;
      return [number, cacheLayout(layer, keepers.has(number) ? keyRotation!.coefficients : 0)];
    }),
  );
}

/** The layer with z in its cache where that takes fewer numbers; for rotated keys only if they may have it. */
function choose<Layer extends FoldedLayer>(layer: Layer, rotated: boolean): Layer {
  const { block, form } = layer;
  const sizes = (name: CachedName): { readonly latent: number; readonly perHead: number } => {
    const [inner, width] = secondShape(layer, name);
    const { heads, size } = fullCache(block, form.keyValueHeads)[name];
    return { latent: inner, perHead: isReduced(form, name) ? width : heads * size };
  };
  const latent = chooseLatent(block, form, { sizes, rotated });
  return latent.length === 0 ? layer : { ...layer, form: { ...form, latent } };
}

/** What one layer keeps; of the coefficients of its keys' rotation as many as given. */
function cacheLayout(layer: FoldedLayer, coefficients: number): CacheLayout {
  const { block, form } = layer;
  const { key, value } = fullCache(block, form.keyValueHeads);
  const part = cachePart(layer, "key", key);
  return {
    key: coefficients === 0 ? part : { ...part, size: part.size + coefficients, rotation: coefficients },
    value: cachePart(layer, "value", value),
  };
}

/** A cache of keys and values at full size. */
export function fullCache(block: AttentionBlock, heads: number): CacheLayout {
  // Some graphs cache what they have repeated already.
  const stored = block.cacheNumbersPerToken / (2 * block.headSize);
  const part = { kind: "full", heads: Math.max(heads, stored), size: block.headSize } as const;
  return { key: part, value: part };
}

/** Numbers that a layer keeps for one token. */
export function cacheNumbers({ key, value }: CacheLayout): number {
  return key.heads * key.size + value.heads * value.size;
}

function cachePart(layer: FoldedLayer, name: CachedName, full: CachePart): CachePart {
  const { form } = layer;
  const latent = form.latent?.includes(name) === true;
  if (!isReduced(form, name) && !latent) return full;
  const [inner, width] = secondShape(layer, name);
  if (!latent) return { kind: "per-head", heads: form.keyValueHeads, size: width / form.keyValueHeads };
  // z that both read is kept once, as the key.
  const kept = name === "value" && form.value === "shared" && form.key === "shared" && form.latent.includes("key");
  return { kind: "latent", heads: 1, size: kept ? 0 : inner };
}

/** Shape of the factor `key.b` or `value.b`: z's numbers by those of all heads. */
function secondShape({ slots, shapes }: FoldedLayer, name: CachedName): readonly [number, number] {
  const { name: tensor } = slots.find(({ role }) => role === `${name}.b`)!;
  return shapes.get(tensor)! as [number, number];
}
