/**
 * The new tensors of a block with dense weights: their names, and their numbers now or when the model is written.
 *
 * @module
 */
import { release } from "../../release.ts";
import type { LocatedBlock } from "../describe.ts";
import { type AttentionWeights, MATRICES } from "../types.ts";
import { projectionsOf, rewrittenProjections } from "./dense_matrices.ts";
import type { ModelWriter, Numbers } from "./writer.ts";

/** New tensors of a block by name, in arrays that nobody else holds. */
export type MakeTensors = (weights: AttentionWeights) => ReadonlyMap<string, Float32Array>;

/** New weights of a block that are made when the model is written: memory then needn't hold those of all blocks. */
export interface LaterWeights {
  /** What `repeatsDiffer` says of them. */
  readonly ungrouped: boolean;
  /** Makes the weights, of which `make` takes all arrays, and takes a tensor of those by name. */
  readonly later: (make: MakeTensors) => (name: string) => Promise<Float32Array>;
}

/** Names of a block's new tensors. */
export interface TensorNames {
  /** Of key and value with a head for each query head; undefined where they keep theirs. */
  readonly manyHeads: { readonly key: string; readonly value: string } | undefined;
  /** Of projections' matrices, by the names of the stored ones: projections that share the old one share the new one. */
  readonly projections: ReadonlyMap<string, string>;
}

/** Names that nothing has yet for the new tensors of a block. `ungrouped`: key and value get a head for each query head. */
export function namesOf(writer: ModelWriter, block: LocatedBlock, ungrouped: boolean): TensorNames {
  const many = (name: string): string => writer.fresh(`layer${block.layer}.${name}.reconstructed`);
  const manyHeads = ungrouped ? { key: many("key"), value: many("value") } : undefined;
  const projections = new Map<string, string>();
  for (const { stored: { name } } of projectionsOf(block, ungrouped)) {
    if (!projections.has(name)) projections.set(name, writer.fresh(`${name}.reconstructed`));
  }
  return { manyHeads, projections };
}

/** The numbers of a block's new tensors, or what makes them. */
export function tensorsOf(
  block: LocatedBlock,
  { folder, names, replacement }: {
    readonly folder: string;
    readonly names: TensorNames;
    readonly replacement: AttentionWeights | LaterWeights;
  },
): (name: string) => Numbers {
  const ungrouped = names.manyHeads !== undefined;
  const made = (weights: AttentionWeights, owned: boolean): Map<string, Float32Array> => {
    const tensors = new Map<string, Float32Array>();
    for (const { projection, matrix } of rewrittenProjections(block, weights, { folder, ungrouped, owned })) {
      const name = names.projections.get(projection.stored.name)!;
      if (!tensors.has(name)) tensors.set(name, matrix);
    }
    for (const part of names.manyHeads === undefined ? [] : ["key", "value"] as const) {
      tensors.set(names.manyHeads![part], weights[part]);
    }
    return tensors;
  };
  if (!("later" in replacement)) {
    const tensors = made(replacement, false);
    return (name) => tensors.get(name)!;
  }
  const take = replacement.later((weights) => {
    const tensors = made(weights, true);
    const used = new Set(tensors.values());
    release(...MATRICES.map((name) => weights[name]).filter((array) => !used.has(array)));
    return tensors;
  });
  return (name) => () => take(name);
}
