/**
 * Writes reconstructed weights back into the graph, as the method's authors do: the same nodes with new matrices.
 *
 * @module
 */
import type { OnnxModel } from "../../onnx/model.ts";
import type { LocatedBlock } from "../describe.ts";
import { analyse, type Analysis, locatedBlock } from "../find.ts";
import type { AttentionWeights, BlockForm } from "../types.ts";
import { projectionsOf } from "./dense_matrices.ts";
import { writeProjection } from "./dense_projection.ts";
import { type LaterWeights, namesOf, type TensorNames, tensorsOf } from "./dense_tensors.ts";
import { writeUngroupedOperator } from "./fused.ts";
import { repeatsDifferIn } from "./repeats_differ.ts";
import { type Factor, SiteWriter } from "./site_writer.ts";
import { writeUngrouped } from "./ungroup.ts";
import { ModelWriter, type Numbers } from "./writer.ts";

/** One matrix for each of key and value, at full size. */
const MANY_HEADS: Omit<BlockForm, "keyValueHeads"> = {
  query: "kept",
  key: "dense",
  value: "dense",
  output: "kept",
  queryKey: "expanded",
  valueOutput: "expanded",
};

/**
 * The model with the weights of some blocks replaced. Biases and all other nodes stay, and the given model is not changed.
 *
 * Where replacements of grouped key or value heads differ within a group, the block becomes one with a head for each query
 * head, in its cache too.
 *
 * @throws TuckerdError "unsupported" if that is needed and the block's graph doesn't show where it repeats heads.
 */
export function rewriteDense(
  model: OnnxModel,
  weights: ReadonlyMap<number, AttentionWeights | LaterWeights>,
): OnnxModel {
  const analysis = analyse(model);
  const writer = new ModelWriter(analysis);
  for (const [layer, replacement] of weights) {
    const block = locatedBlock(analysis, layer);
    const ungrouped = "later" in replacement ? replacement.ungrouped : repeatsDifferIn(block, replacement);
    const names = namesOf(writer, block, ungrouped);
    const tensors = tensorsOf(block, { folder: model.folder, names, replacement });
    if (ungrouped) writeManyHeads(analysis, writer, { block, names, tensors });
    const written = new Set<string>();
    for (const projection of projectionsOf(block, ungrouped)) {
      const name = names.projections.get(projection.stored.name)!;
      if (!written.has(name)) {
        const { rows, columns, elementType } = projection;
        writer.floats({ name, type: elementType }, { shape: [rows, columns], data: tensors(name) });
        written.add(name);
      }
      writeProjection(writer, projection, name);
    }
    analysis.tracer.forgetUnused();
  }
  analysis.tracer.forgetAll();
  return writer.finish(model);
}

/** Key and value with a head for every query head, from new matrices: grouped attention becomes multi-head attention. */
function writeManyHeads(
  analysis: Analysis,
  writer: ModelWriter,
  { block, names, tensors }: {
    readonly block: LocatedBlock;
    readonly names: TensorNames;
    readonly tensors: (name: string) => Numbers;
  },
): void {
  const { layer, hiddenSize, heads, headSize } = block;
  const type = block.sites[0].key.projection.elementType;
  const factors = (["key", "value"] as const).map((name): Factor => {
    const shape = [hiddenSize, heads * headSize];
    const value = names.manyHeads![name];
    writer.floats({ name: value, type }, { shape, data: tensors(value) });
    return { slot: { layer, role: `${name}.b`, name: value, shape }, value };
  });
  for (const site of block.sites) {
    const at = new SiteWriter({ writer, tracer: analysis.tracer, site, label: `tuckerd/layer${layer}`, factors });
    const form = { ...MANY_HEADS, keyValueHeads: heads };
    if (site.fused !== undefined) writeUngroupedOperator(at, site.fused, form);
    else for (const name of ["key", "value"] as const) writeUngrouped(at, form, name);
  }
}
