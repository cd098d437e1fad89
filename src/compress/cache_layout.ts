/**
 * What a decoder's layers keep for later tokens once they run on factors, and where the latent z is smaller than numbers per
 * head.
 *
 * @module
 */
import { type AttentionBlock, type BlockForm, chooseLatent, type FactorSlot, isReduced } from "../attention/mod.ts";
import type { CachedName } from "../attention/types.ts";
import type { CacheLayout, CachePart } from "./artifact.ts";

/** One layer's form and the shapes of its factor tensors, by the names that the graph has for them. */
export interface FoldedLayer {
  readonly block: AttentionBlock;
  readonly form: BlockForm;
  readonly slots: readonly FactorSlot[];
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

/** The layer with z in its cache where that takes fewer numbers. Its factor tensors are the same. */
export function withLatent(layer: FoldedLayer): FoldedLayer {
  const { block, form } = layer;
  const latent = chooseLatent(block, form, (name) => {
    const [inner, width] = secondShape(layer, name);
    return { latent: inner, perHead: width };
  });
  return latent.length === 0 ? layer : { ...layer, form: { ...form, latent } };
}

/** What a layer with a cache keeps in a graph that runs its factors. */
export function cacheLayout(layer: FoldedLayer): CacheLayout {
  const { block, form } = layer;
  const { key, value } = fullCache(block, form.keyValueHeads);
  return { key: cachePart(layer, "key", key), value: cachePart(layer, "value", value) };
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
  if (!isReduced(form, name)) return full;
  const [inner, width] = secondShape(layer, name);
  if (form.latent?.includes(name) !== true) {
    return { kind: "per-head", heads: form.keyValueHeads, size: width / form.keyValueHeads };
  }
  // z that both read is kept once, as the key.
  const kept = name === "value" && form.value === "shared" && form.key === "shared" && form.latent.includes("key");
  return { kind: "latent", heads: 1, size: kept ? 0 : inner };
}

/** Shape of the factor `key.b` or `value.b`: z's numbers by those of all heads. */
function secondShape({ slots, shapes }: FoldedLayer, name: CachedName): readonly [number, number] {
  const { name: tensor } = slots.find(({ role }) => role === `${name}.b`)!;
  return shapes.get(tensor)! as [number, number];
}
