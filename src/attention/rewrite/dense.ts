/**
 * Writes reconstructed weights back into the graph, as the method's authors do: the same nodes with new matrices.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import { makeNode } from "../../onnx/node.ts";
import { release } from "../../release.ts";
import { analyse, type Analysis, type LocatedBlock, locatedBlock } from "../find.ts";
import type { Site } from "../site.ts";
import type { Projection } from "../trace/projection.ts";
import { isEveryIndex, projectionMatrix } from "../matrices.ts";
import { type AttentionBlock, type AttentionWeights, type BlockForm, MATRICES } from "../types.ts";
import { writeUngroupedOperator } from "./fused.ts";
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

/** A projection with its new matrix, d × N. */
interface Rewritten {
  readonly projection: Projection;
  readonly matrix: Float32Array;
}

/** New tensors of a block by name, in arrays that nobody else holds. */
export type MakeTensors = (weights: AttentionWeights) => ReadonlyMap<string, Float32Array>;

/** New weights of a block that are made when the model is written: memory then needn't hold those of all blocks. */
export interface LaterWeights {
  /** What `repeatsDiffer` says of them. */
  readonly ungrouped: boolean;
  /** Makes the weights, of which `make` takes all arrays, and takes a tensor of those by name. */
  readonly later: (make: MakeTensors) => (name: string) => Promise<Float32Array>;
}

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

/** Whether key or value heads of a block share columns of the file: replacements of those may differ. */
export function repeatsHeads(model: OnnxModel, { layer }: AttentionBlock): boolean {
  const { sites: [site] } = locatedBlock(analyse(model), layer);
  return [site.key, site.value].some(({ columns }) => new Set(columns).size < columns.length);
}

/** Whether replacements of a block's key or value heads that share columns of the file differ, beyond rounding. */
export function repeatsDiffer(model: OnnxModel, { layer }: AttentionBlock, weights: AttentionWeights): boolean {
  return repeatsDifferIn(locatedBlock(analyse(model), layer), weights);
}

/** Names of a block's new tensors. */
interface TensorNames {
  /** Of key and value with a head for each query head; undefined where they keep theirs. */
  readonly manyHeads: { readonly key: string; readonly value: string } | undefined;
  /** Of projections' matrices, by the names of the stored ones: projections that share the old one share the new one. */
  readonly projections: ReadonlyMap<string, string>;
}

function namesOf(writer: ModelWriter, block: LocatedBlock, ungrouped: boolean): TensorNames {
  const many = (name: string): string => writer.fresh(`layer${block.layer}.${name}.reconstructed`);
  const manyHeads = ungrouped ? { key: many("key"), value: many("value") } : undefined;
  const projections = new Map<string, string>();
  for (const { stored: { name } } of projectionsOf(block, ungrouped)) {
    if (!projections.has(name)) projections.set(name, writer.fresh(`${name}.reconstructed`));
  }
  return { manyHeads, projections };
}

/** The numbers of a block's new tensors, or what makes them. */
function tensorsOf(
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

/** Every projection node that gets a new matrix, at all sites of a block. */
function projectionsOf({ sites, twins }: LocatedBlock, ungrouped: boolean): readonly Projection[] {
  const own = sites.flatMap((site) => [
    ...headsOf(ungrouped).filter((name) => !site[name].fromCache).map((name) => site[name].projection),
    site.output.projection,
  ]);
  const all = [...own, ...twins.map(({ projection }) => projection)];
  return [...new Map(all.map((projection) => [projection.node, projection])).values()];
}

function headsOf(ungrouped: boolean): readonly ("query" | "key" | "value")[] {
  return ungrouped ? ["query"] : ["query", "key", "value"];
}

/** The new matrix of every projection node of a block, at all of its sites; each in an array of its own. */
function rewrittenProjections(
  block: LocatedBlock,
  weights: AttentionWeights,
  { folder, ungrouped, owned }: {
    readonly folder: string;
    readonly ungrouped: boolean;
    /** Whether the weights' own arrays may become the matrices. */
    readonly owned: boolean;
  },
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
  /** Takes a matrix that is replaced as a whole as it is, where no other place can ask for it. */
  const taken = (projection: Projection, indices: Int32Array, matrix: Float32Array): boolean => {
    const whole = owned && block.sites.length === 1 && block.twins.length === 0 &&
      !matrices.has(projection.node) && matrix.length === projection.rows * projection.columns &&
      isEveryIndex(indices, indices.length);
    if (whole) matrices.set(projection.node, { projection, matrix });
    return whole;
  };
  for (const site of block.sites) {
    for (const name of headsOf(ungrouped)) {
      if (site[name].fromCache) continue;
      const { projection, columns } = site[name];
      if (taken(projection, columns, weights[name])) continue;
      const matrix = open(projection);
      for (let r = 0; r < projection.rows; r++) {
        columns.forEach((column, c) =>
          matrix[r * projection.columns + column] = weights[name][r * columns.length + c]!
        );
      }
    }
    const { projection, rows } = site.output;
    if (taken(projection, rows, weights.output)) continue;
    const matrix = open(projection);
    const width = projection.columns;
    rows.forEach((row, i) => matrix.set(weights.output.subarray(i * width, (i + 1) * width), row * width));
  }
  for (const { projection, names } of block.twins) {
    const [{ projection: same }] = names.map((name) => block.sites[0][name]) as [Site["query"]];
    matrices.set(projection.node, { projection, matrix: open(same).slice() });
  }
  return [...matrices.values()];
}

function repeatsDifferIn(block: LocatedBlock, weights: AttentionWeights): boolean {
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

/** A copy of the projection's node that reads the new matrix. */
function writeProjection(writer: ModelWriter, projection: Projection, name: string): void {
  const { node, graph, stream, alpha, beta, bias } = projection;
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
