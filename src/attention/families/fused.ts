/**
 * Attention as one operator: com.microsoft.Attention (projections inside, packed [d, 3·H·h]), MultiHeadAttention and
 * GroupQueryAttention of com.microsoft, and Attention of the standard (opset 23), which take query, key and value as
 * [batch, positions, H·h] or with heads first. They scale by 1/√h or by their attribute.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, intsAttribute, type NodeProto, operatorOf, stringAttribute } from "../../onnx/node.ts";
import { type HeadView, readHeads } from "../heads.ts";
import { multiHeadProblem } from "../multi_head.ts";
import { PLAIN } from "../rows.ts";
import type { Verdict } from "../site.ts";
import { knownConstant } from "../trace/constants.ts";
import { elementTypeOf, type Projection } from "../trace/projection.ts";
import { pickElements, type Trace } from "../trace/trace.ts";
import type { Tracer } from "../trace/tracer.ts";
import { stridedIndex } from "../trace/value.ts";
import { readerAtOperator } from "./fused_reader.ts";
import { fusedSite, type FusedViews } from "./fused_site.ts";

/** Judges one com.microsoft.Attention node. */
export function findAtAttention(tracer: Tracer, graph: Graph, node: NodeProto): Verdict {
  const [stream, weight, bias, mask, past, attentionBias] = node.input;
  const buffer = intAttribute(node, "past_present_share_buffer", 0) === 1;
  if (buffer || node.input[6]) return { reason: "its past and present share a buffer" };
  if (intAttribute(node, "do_rotary", 0) === 1) return { reason: "it rotates inside the operator" };
  const masked = multiHeadProblem(tracer, graph, { node, mask: mask || undefined });
  if (masked?.readable === false) return { reason: masked.reason };
  const matrix = weight === undefined ? undefined : tracer.value(graph, weight);
  const shape = matrix?.shape;
  if (stream === undefined || weight === undefined || matrix?.constant !== true || shape?.length !== 2) {
    return { reason: "its weights aren't a constant matrix" };
  }
  const [rows, columns] = shape as [number, number];
  const sizes = intsAttribute(node, "qkv_hidden_sizes") ?? [columns / 3, columns / 3, columns / 3];
  if (new Set(sizes).size > 1) return { reason: `query, key and value have widths ${sizes}: they don't stack` };
  const projection: Projection = {
    graph,
    node,
    stream,
    input: stream,
    stored: { kind: "plain", name: weight, transposed: false },
    elementType: elementTypeOf(graph, weight),
    alpha: 1,
    bias: undefined,
    beta: 1,
    rows,
    columns,
  };
  const biases = bias ? splitBias(tracer, graph, bias) : [];
  if (biases === undefined) return { reason: "its bias isn't a constant" };
  const heads = intAttribute(node, "num_heads", 1);
  const width = sizes[0]!;
  const view = (part: number): HeadView => ({
    projection,
    heads,
    headSize: width / heads,
    columns: Int32Array.from({ length: width }, (_, i) => part * width + i),
    scale: 1,
    bias: biases[part],
    inexact: undefined,
    order: PLAIN,
    past: undefined,
  });
  const views = { query: view(0), key: view(1), value: view(2) };
  return fusedSite(tracer, {
    graph,
    node,
    views,
    biases: [],
    mask: mask || undefined,
    attentionBias: attentionBias || undefined,
    headsFirst: false,
    packed: false,
    // One tensor holds the past of both.
    oneHeadSize: node.output[1] !== undefined && node.output[1] !== "",
    past: { key: past || undefined, value: past || undefined },
  });
}

/** Where an operator has its operands and attributes. */
interface Signature {
  readonly heads: string;
  readonly groups: string;
  readonly inputs: {
    readonly bias?: number;
    readonly mask: number;
    readonly attentionBias?: number;
    /** Past key; the past value is the next one. */
    readonly past: number;
    /** Inputs that say how the cache is to be read. */
    readonly lookup?: readonly number[];
  };
}

const SIGNATURES: Readonly<Record<string, Signature>> = {
  "com.microsoft.MultiHeadAttention": {
    heads: "num_heads",
    groups: "num_heads",
    inputs: { bias: 3, mask: 4, attentionBias: 5, past: 6, lookup: [8, 9] },
  },
  "com.microsoft.GroupQueryAttention": { heads: "num_heads", groups: "kv_num_heads", inputs: { mask: 5, past: 3 } },
  "Attention": { heads: "q_num_heads", groups: "kv_num_heads", inputs: { mask: 3, past: 4 } },
};

/**
 * Judges one operator that takes query, key and value from projections before it: MultiHeadAttention and
 * GroupQueryAttention of com.microsoft, and Attention of the standard (opset 23).
 */
export function findAtOperator(tracer: Tracer, graph: Graph, node: NodeProto): Verdict {
  const { heads: headsName, groups: groupsName, inputs } = SIGNATURES[operatorOf(node)]!;
  const input = (index: number | undefined): string | undefined =>
    index === undefined ? undefined : node.input[index] || undefined;
  const first = tracer.trace(graph, node.input[0]!);
  if (first === undefined) return { reason: "the shape of its query isn't known" };
  const headsFirst = first.shape.length === 4;
  const heads = headsFirst ? first.shape[1]! : intAttribute(node, headsName, 1);
  const groups = intAttribute(node, groupsName, heads);
  const bias = input(inputs.bias);
  const biases = bias === undefined ? [] : splitBias(tracer, graph, bias);
  if (biases === undefined) return { reason: "its bias isn't a constant" };
  const packed = input(1) === undefined && input(2) === undefined && node.opType === "GroupQueryAttention";
  const views: Partial<FusedViews> = {};
  for (const [part, name] of (["query", "key", "value"] as const).entries()) {
    const operand = input(part);
    const trace = packed
      ? packedPart(first, part, { heads, groups })
      : operand === undefined
      ? undefined
      : tracer.trace(graph, operand);
    if (trace === undefined) return { reason: `its ${name} isn't given by itself, or its shape isn't known` };
    if (trace.shape.length !== first.shape.length) {
      return { reason: `its ${name} has shape [${trace.shape}], its query [${first.shape}]` };
    }
    const own = part === 0 ? heads : headsFirst ? trace.shape[1]! : groups;
    const stacked = repeated(headsFirst ? trace : splitHeads(trace, { heads: own, bias: biases[part] }), heads);
    const view = readHeads(tracer, stacked, false);
    if (typeof view === "string") {
      return readerAtOperator(tracer, graph, node) ?? { reason: `the ${name} can't be followed: ${view}` };
    }
    views[name] = view;
  }
  const quantised = ["k_quant_type", "v_quant_type"].some((name) => (stringAttribute(node, name) ?? "NONE") !== "NONE");
  // Its scales were measured on the original keys and values.
  if (quantised) return { reason: "its cache is quantised, by scales made for the original keys and values" };
  const lookup = inputs.lookup?.map(input).find((name) => name !== undefined);
  if (lookup !== undefined) return { reason: `it reads its cache through ${lookup}` };
  return fusedSite(tracer, {
    graph,
    node,
    views: views as FusedViews,
    biases,
    mask: input(inputs.mask),
    attentionBias: input(inputs.attentionBias),
    headsFirst,
    packed,
    oneHeadSize: node.opType === "MultiHeadAttention" && input(inputs.past) !== undefined,
    past: { key: input(inputs.past), value: input(inputs.past + 1) },
  });
}

/** Query, key or value in a packed operand [batch, positions, (H + 2G)·h]. */
function packedPart(trace: Trace, part: number, { heads, groups }: { heads: number; groups: number }): Trace {
  const [batch, positions, width] = trace.shape as [number, number, number];
  const h = width / (heads + 2 * groups);
  const start = part === 0 ? 0 : (heads + (part - 1) * groups) * h;
  const shape = [batch, positions, (part === 0 ? heads : groups) * h];
  return pickElements(trace, shape, stridedIndex(shape, [positions * width, width, 1], start));
}

/** The three parts of a packed bias. */
function splitBias(tracer: Tracer, graph: Graph, name: string): Float32Array[] | undefined {
  const known = knownConstant(graph, name, tracer.folder);
  if (known === undefined) return undefined;
  const data = Float32Array.from(known.data);
  const width = data.length / 3;
  return [0, 1, 2].map((part) => data.slice(part * width, (part + 1) * width));
}

/** [B, T, H·h] seen as [B, H, T, h], plus a bias. */
function splitHeads(trace: Trace, { heads, bias }: { heads: number; bias: Float32Array | undefined }): Trace {
  const [batch, positions, width] = trace.shape as [number, number, number];
  const h = width / heads;
  const shape = [batch, heads, positions, h];
  const index = stridedIndex(shape, [positions * width, h, width, 1]);
  const picked = pickElements(trace, shape, index);
  if (bias !== undefined) index.forEach((from, i) => picked.offset[i]! += bias[from % width]!);
  return picked;
}

/** [B, G, T, h] with every head repeated for its group: [B, H, T, h]. */
function repeated(trace: Trace, heads: number): Trace {
  const [batch, groups, positions, h] = trace.shape as [number, number, number, number];
  if (groups === heads) return trace;
  const index = stridedIndex([batch, groups, heads / groups, positions, h], [
    groups * positions * h,
    positions * h,
    0,
    h,
    1,
  ]);
  return pickElements(trace, [batch, heads, positions, h], index);
}
