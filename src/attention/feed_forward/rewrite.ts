/**
 * Rewrites matrices of feed-forward networks to run as two (LASER's truncation, in factors), or as one other matrix:
 *
 *     before   x ─ MatMul(W) ─ …                    Gemm(x, W, bias) ─ …
 *     pair     x ─ MatMul(a) ─ MatMul(b) ─ …        x ─ MatMul(a) ─ MatMul(b) ─ Add(bias) ─ …
 *     dense    x ─ MatMul(Ŵ) ─ …                    x ─ MatMul(Ŵ) ─ Add(bias) ─ …
 *
 * @module
 */
import { Graph } from "../../onnx/graph.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import type { NodeProto } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import { tensorInfo } from "../../onnx/value_info.ts";
import { analyse, type Analysis } from "../find.ts";
import { type FactorNumbers, ModelWriter } from "../rewrite/writer.ts";
import type { Projection } from "../trace/projection.ts";
import { locatedMatrix } from "./find.ts";
import type { FeedForwardForm, FeedForwardSlot, MatrixForm } from "./types.ts";

/** Where the rewritten networks take their tensors from. */
export type FeedForwardSource =
  | { readonly factors: "inputs" }
  | {
    readonly factors: "initializers";
    readonly tensors: (slot: FeedForwardSlot) => FactorNumbers;
  };

/** A rewritten model and the tensors that its networks take. */
export interface RewrittenFeedForward {
  readonly model: OnnxModel;
  readonly slots: readonly FeedForwardSlot[];
}

/**
 * Rewrites the matrices named in `forms`. As graph inputs, factors have symbolic ranks and are float32 whatever the network
 * computes in.
 *
 * @param original the model in which the networks were found
 * @param target the model to rewrite: the original, or what a rewrite of its attention made of it (networks are the same nodes there)
 * @throws RangeError if a matrix doesn't exist, or a tensor doesn't fit its slot.
 */
export function rewriteFeedForward(
  original: OnnxModel,
  target: OnnxModel,
  { forms, source }: { readonly forms: readonly FeedForwardForm[]; readonly source: FeedForwardSource },
): RewrittenFeedForward {
  if (forms.length === 0) return { model: target, slots: [] };
  const graph = new Graph(target.proto.graph!);
  const writer = new ModelWriter({ graph });
  const scopes = new Map<NodeProto, Graph>();
  for (const scope of graph.all()) for (const node of scope.proto.node) scopes.set(node, scope);
  const analysis = analyse(original);
  const slots = forms.flatMap((form) => {
    const { sites } = locatedMatrix(original, form);
    const own = slotsOf(form, sites[0]).map((slot) => ({ ...slot, name: writer.fresh(slot.name) }));
    const values = own.map((slot) => addTensor(writer, slot, { source, graph, type: sites[0].elementType }));
    for (const site of sites) {
      const scope = scopes.get(site.node) ?? putLowered(writer, scopes, { analysis, product: site.node });
      if (scope === undefined) {
        throw new RangeError(`the target has no node ${site.node.name}: it isn't made of the original`);
      }
      writeProducts(writer, { scope, site, values, label: `tuckerd/layer${form.layer}/${form.matrix}` });
    }
    return own;
  });
  return { model: writer.finish(target), slots };
}

/**
 * Puts plain operators in the place of the one of the file that holds a product, without the product itself; the scope where it
 * stands, or undefined where the target has no such operator.
 */
function putLowered(
  writer: ModelWriter,
  scopes: ReadonlyMap<NodeProto, Graph>,
  { analysis, product }: { readonly analysis: Analysis; readonly product: NodeProto },
): Graph | undefined {
  const lowering = analysis.lowerings.find(({ nodes }) => nodes.includes(product));
  const scope = lowering && scopes.get(lowering.original);
  if (scope === undefined) return undefined;
  for (const node of lowering!.nodes) if (node !== product) writer.put(scope, node);
  // Constants that came with the plain operators went where nothing read them any more.
  const read = new Set(lowering!.nodes.flatMap(({ input }) => input.slice(1)));
  for (const name of read) {
    const tensor = scope.initializer(name) === undefined ? analysis.graph.initializer(name) : undefined;
    if (tensor !== undefined) writer.initializer(tensor);
  }
  return scope;
}

function slotsOf({ layer, index, matrix, form }: FeedForwardForm, { rows, columns }: Projection): FeedForwardSlot[] {
  const place = { layer, index, matrix };
  const base = `layer${layer}.${index === 0 ? "" : `${index}.`}${matrix}`;
  const shapes: Readonly<Record<MatrixForm, Partial<Record<FeedForwardSlot["part"], (number | string)[]>>>> = {
    pair: { a: [rows, `${base}.r`], b: [`${base}.r`, columns] },
    dense: { dense: [rows, columns] },
  };
  return Object.entries(shapes[form]).map(([part, shape]) => ({
    ...place,
    part: part as FeedForwardSlot["part"],
    name: `tuckerd.${base}.${part}`,
    shape,
  }));
}

/** Adds a tensor and returns the value that holds it in the network's element type. */
function addTensor(
  writer: ModelWriter,
  slot: FeedForwardSlot,
  { source, graph, type }: { readonly source: FeedForwardSource; readonly graph: Graph; readonly type: number },
): string {
  if (source.factors === "inputs") {
    writer.input(tensorInfo(slot.name, DataType.FLOAT, slot.shape));
    if (type === DataType.FLOAT) return slot.name;
    return writer.node(graph, "Cast", {
      inputs: [slot.name],
      label: `${slot.name}.cast`,
      attributes: { to: BigInt(type) },
    });
  }
  const { shape, data } = source.tensors(slot);
  const fits = shape.length === 2 && slot.shape.every((size, i) => typeof size === "string" || size === shape[i]);
  if (!fits) throw new RangeError(`factor ${slot.name} needs shape [${slot.shape}], got [${shape}]`);
  writer.floats({ name: slot.name, type }, { shape, data });
  return slot.name;
}

/** The products in place of one projection, with its scale and its own bias. */
function writeProducts(
  writer: ModelWriter,
  { scope, site, values, label }: {
    readonly scope: Graph;
    readonly site: Projection;
    readonly values: readonly string[];
    readonly label: string;
  },
): void {
  const { stream, alpha, beta, bias, elementType, node } = site;
  const steps: { opType: string; inputs: (value: string) => string[] }[] = values.map((factor) => ({
    opType: "MatMul",
    inputs: (value) => [value, factor],
  }));
  const scaled = (value: string, by: number): string[] => [value, writer.scalar(Math.fround(by), elementType)];
  if (alpha !== 1) steps.push({ opType: "Mul", inputs: (value) => scaled(value, alpha) });
  if (bias !== undefined) {
    const addend = beta === 1
      ? bias
      : writer.node(scope, "Mul", { inputs: scaled(bias, beta), label: `${label}/beta` });
    steps.push({ opType: "Add", inputs: (value) => [value, addend] });
  }
  steps.reduce((value, { opType, inputs }, i) =>
    writer.node(scope, opType, {
      inputs: inputs(value),
      label: `${label}/${opType}`,
      output: i === steps.length - 1 ? node.output[0] : undefined,
    }), stream);
}
