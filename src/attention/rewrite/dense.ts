/**
 * Writes reconstructed weights back into the graph, as the method's authors do: the same nodes with new matrices.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import { makeNode } from "../../onnx/node.ts";
import { floatTensor } from "../../onnx/tensor.ts";
import { analyse, type Analysis, type LocatedBlock, locatedBlock } from "../find.ts";
import type { Site } from "../site.ts";
import type { Projection } from "../trace/projection.ts";
import type { AttentionWeights, BlockForm } from "../types.ts";
import { projectionMatrix } from "../matrices.ts";
import { writeUngroupedOperator } from "./fused.ts";
import { type Factor, SiteWriter } from "./site_writer.ts";
import { writeUngrouped } from "./ungroup.ts";
import { ModelWriter } from "./writer.ts";

/** One matrix for each of key and value, at full size. */
const MANY_HEADS: Omit<BlockForm, "keyValueHeads"> = {
  query: "kept",
  key: "dense",
  value: "dense",
  output: "kept",
  queryKey: "expanded",
  valueOutput: "expanded",
};

/** A projection with its new matrix, d × N. */
interface Rewritten {
  readonly projection: Projection;
  readonly matrix: Float32Array;
}

/**
 * The model with the weights of some blocks replaced. Biases and all other nodes stay, and the given model is not changed.
 *
 * Where replacements of grouped key or value heads differ within a group, the block becomes one with a head for each query
 * head, in its cache too.
 *
 * @throws TuckerdError "unsupported" if that is needed and the block's graph doesn't show where it repeats heads.
 */
export function rewriteDense(model: OnnxModel, weights: ReadonlyMap<number, AttentionWeights>): OnnxModel {
  const analysis = analyse(model);
  const writer = new ModelWriter(analysis);
  for (const [layer, replacement] of weights) {
    const block = locatedBlock(analysis, layer);
    const ungrouped = repeatsDiffer(block, replacement);
    if (ungrouped) writeManyHeads(analysis, writer, { block, weights: replacement });
    const names = new Map<string, string>();
    for (const rewritten of rewrittenProjections(block, replacement, { folder: model.folder, ungrouped })) {
      writeProjection(writer, rewritten, names);
    }
    analysis.tracer.forgetUnused();
  }
  analysis.tracer.forgetAll();
  return writer.finish(model);
}

/** The new matrix of every projection node of a block, at all of its sites. */
function rewrittenProjections(
  block: LocatedBlock,
  weights: AttentionWeights,
  { folder, ungrouped }: { readonly folder: string; readonly ungrouped: boolean },
): Rewritten[] {
  const matrices = new Map<Projection["node"], Rewritten>();
  const open = (projection: Projection): Float32Array => {
    let rewritten = matrices.get(projection.node);
    if (rewritten === undefined) {
      const { data, owned } = projectionMatrix(projection, folder);
      rewritten = { projection, matrix: owned ? data : data.slice() };
      matrices.set(projection.node, rewritten);
    }
    return rewritten.matrix;
  };
  for (const site of block.sites) {
    for (const name of ungrouped ? ["query"] as const : ["query", "key", "value"] as const) {
      if (site[name].fromCache) continue;
      const { projection, columns } = site[name];
      const matrix = open(projection);
      for (let r = 0; r < projection.rows; r++) {
        columns.forEach((column, c) =>
          matrix[r * projection.columns + column] = weights[name][r * columns.length + c]!
        );
      }
    }
    const { projection, rows } = site.output;
    const matrix = open(projection);
    const width = projection.columns;
    rows.forEach((row, i) => matrix.set(weights.output.subarray(i * width, (i + 1) * width), row * width));
  }
  for (const { projection, names } of block.twins) {
    const [{ projection: same }] = names.map((name) => block.sites[0][name]) as [Site["query"]];
    matrices.set(projection.node, { projection, matrix: open(same) });
  }
  return [...matrices.values()];
}

/** Whether key or value heads that share columns of the file have different replacements (beyond rounding). */
function repeatsDiffer(block: LocatedBlock, weights: AttentionWeights): boolean {
  const [site] = block.sites;
  return (["key", "value"] as const).some((name) => {
    const { columns } = site[name];
    const matrix = weights[name];
    const width = columns.length;
    const tolerance = 1e-5 * matrix.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const first = new Map<number, number>();
    columns.forEach((column, c) => first.has(column) || first.set(column, c));
    return columns.some((column, c) => {
      const of = first.get(column)!;
      if (of === c) return false;
      for (let r = 0; r < matrix.length; r += width) {
        if (!(Math.abs(matrix[r + c]! - matrix[r + of]!) <= tolerance)) return true;
      }
      return false;
    });
  });
}

/** Key and value with a head for every query head, from new matrices: grouped attention becomes multi-head attention. */
function writeManyHeads(
  analysis: Analysis,
  writer: ModelWriter,
  { block, weights }: { readonly block: LocatedBlock; readonly weights: AttentionWeights },
): void {
  const { layer, hiddenSize, heads, headSize } = block;
  const type = block.sites[0].key.projection.elementType;
  const factors = (["key", "value"] as const).map((name): Factor => {
    const shape = [hiddenSize, heads * headSize];
    const value = writer.fresh(`layer${layer}.${name}.reconstructed`);
    writer.initializer(floatTensor(value, shape, weights[name], type));
    return { slot: { layer, role: `${name}.b`, name: value, shape }, value };
  });
  for (const site of block.sites) {
    const at = new SiteWriter({ writer, tracer: analysis.tracer, site, label: `tuckerd/layer${layer}`, factors });
    const form = { ...MANY_HEADS, keyValueHeads: heads };
    if (site.fused !== undefined) writeUngroupedOperator(at, site.fused, form);
    else for (const name of ["key", "value"] as const) writeUngrouped(at, form, name);
  }
}

/** A copy of the projection's node that reads the new matrix; sites that share the old one share the new one. */
function writeProjection(
  writer: ModelWriter,
  { projection, matrix }: Rewritten,
  names: Map<string, string>,
): void {
  const { node, graph, stored, elementType, rows, columns, stream, alpha, beta, bias } = projection;
  const weight = stored.name;
  let name = names.get(weight);
  if (name === undefined) {
    names.set(weight, name = writer.fresh(`${weight}.reconstructed`));
    writer.initializer(floatTensor(name, [rows, columns], matrix, elementType));
  }
  const inputs = bias === undefined ? [stream, name] : [stream, name, bias];
  if (node.opType === "Attention") {
    writer.put(graph, withFields(node, { input: node.input.with(1, name) }));
    return;
  }
  if (node.opType === "FusedMatMul") {
    const options = { name: node.name, domain: node.domain, attributes: { alpha } };
    writer.put(graph, makeNode("FusedMatMul", inputs, node.output, options));
    return;
  }
  // ONNX Runtime rounds the matrix of a Gemm between dequantisation and quantisation to 8 bits, a MatMul's it leaves alone.
  if (node.opType === "Gemm" && graph.producer(stream)?.opType === "DequantizeLinear") {
    writeProduct(writer, projection, name);
    return;
  }
  const gemm = node.opType === "Gemm";
  const attributes = gemm ? { attributes: { alpha, beta } } : {};
  writer.put(graph, makeNode(gemm ? "Gemm" : "MatMul", inputs, node.output, { name: node.name, ...attributes }));
}

/** A Gemm with another matrix as MatMul, Mul and Sub: ONNX Runtime makes a Gemm of MatMul and Add again. */
function writeProduct(
  writer: ModelWriter,
  { node, graph, elementType, stream, alpha, beta, bias }: Projection,
  matrix: string,
): void {
  const label = node.name || node.output[0]!;
  const steps: [opType: string, other: string][] = [["MatMul", matrix]];
  if (alpha !== 1) steps.push(["Mul", writer.scalar(Math.fround(alpha), elementType)]);
  if (bias !== undefined) {
    const inputs = [bias, writer.scalar(-Math.fround(beta), elementType)];
    steps.push(["Sub", writer.node(graph, "Mul", { inputs, label: `${label}/bias` })]);
  }
  steps.reduce((value, [opType, other], i) =>
    writer.node(graph, opType, {
      inputs: [value, other],
      label: `${label}/${opType}`,
      output: i === steps.length - 1 ? node.output[0] : undefined,
    }), stream);
}
