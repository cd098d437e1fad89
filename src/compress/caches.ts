/**
 * Key-value caches that graphs hand to each other: a decoder's first call fills what its later calls read.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { OnnxModel } from "../onnx/model.ts";
import type { ValueInfoProto } from "../onnx/node.ts";

/** Heads and numbers per head of every cache that a graph takes or gives, by the name without its direction. */
export interface CacheSizes {
  readonly graph: string;
  readonly sizes: ReadonlyMap<string, string>;
}

/** The caches of a graph: `past_key_values.<name>` and `present.<name>`, [batch, heads, positions, numbers]. */
export function cacheSizes(graph: string, { proto }: OnnxModel): CacheSizes {
  const sizes = new Map<string, string>();
  for (const value of [...proto.graph?.input ?? [], ...proto.graph?.output ?? []]) {
    const [, name] = /^(?:past_key_values|past|present)\.(.+)$/.exec(value.name) ?? [];
    const size = name === undefined ? undefined : fixedSizes(value);
    if (name !== undefined && size !== undefined) sizes.set(name, size);
  }
  return { graph, sizes };
}

/**
 * Checks that graphs agree on the caches that they share.
 *
 * @throws TuckerdError `invalid` naming the cache and the graphs
 */
export function checkSameCaches(graphs: readonly CacheSizes[]): void {
  const seen = new Map<string, { readonly graph: string; readonly size: string }>();
  for (const { graph, sizes } of graphs) {
    for (const [name, size] of sizes) {
      const first = seen.get(name);
      if (first === undefined) seen.set(name, { graph, size });
      else if (first.size !== size) {
        throw new TuckerdError(
          "invalid",
          `${first.graph} and ${graph} wouldn't share the cache ${name}: ${first.size} against ${size} (heads × numbers); ` +
            "compress the same layers in both (--layers all) at the same --ranks, or take --cache per-head, or keep the cache as it is (--cache full)",
        );
      }
    }
  }
}

/** The second and the last size, where both are fixed. */
function fixedSizes({ type }: ValueInfoProto): string | undefined {
  const dims = type?.tensorType?.shape?.dim ?? [];
  if (dims.length !== 4) return undefined;
  const [heads, numbers] = [dims[1], dims[3]].map((dim) =>
    dim?.value.case === "dimValue" ? dim.value.value : undefined
  );
  return heads === undefined || numbers === undefined ? undefined : `${heads} × ${numbers}`;
}
