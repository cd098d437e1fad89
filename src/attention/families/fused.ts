/**
 * Attention as one operator: com.microsoft.Attention (projections inside, packed [d, 3·H·h]), MultiHeadAttention and
 * GroupQueryAttention of com.microsoft, and Attention of the standard (opset 23), which take query, key and value as
 * [batch, positions, H·h] or with heads first. They scale by 1/√h or by their attribute.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, intAttribute, intsAttribute, type NodeProto, operatorOf } from "../../onnx/node.ts";
import { type HeadView, readHeads } from "../heads.ts";
import { readOutput } from "../output.ts";
import type { FusedOperator, SiteParts, Verdict } from "../site.ts";
import { judgeSpaces } from "../space.ts";
import { knownConstant } from "../trace/constants.ts";
import { elementTypeOf, type Projection } from "../trace/projection.ts";
import { pickElements, type Trace } from "../trace/trace.ts";
import type { Tracer } from "../trace/tracer.ts";
import { stridedIndex } from "../trace/value.ts";

type Views = Record<"query" | "key" | "value", HeadView>;

/** Judges one com.microsoft.Attention node. */
export function findAtAttention(tracer: Tracer, graph: Graph, node: NodeProto): Verdict {
  const [stream, weight, bias, mask, past, attentionBias] = node.input;
  if (past || node.output[1]) return { reason: "it keeps its cache inside the operator, which isn't taken apart yet" };
  if (intAttribute(node, "do_rotary", 0) === 1) return { reason: "it rotates inside the operator" };
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
    past: undefined,
  });
  const views = { query: view(0), key: view(1), value: view(2) };
  const found = { graph, node, views, biases: [], mask: mask || undefined, attentionBias: attentionBias || undefined };
  return finish(tracer, found, { past: undefined, headsFirst: false });
}

/** Where an operator has its operands and attributes. */
interface Signature {
  readonly heads: string;
  readonly groups: string;
  readonly inputs: {
    readonly bias?: number;
    readonly mask: number;
    readonly attentionBias?: number;
    readonly past: number;
  };
}

const SIGNATURES: Readonly<Record<string, Signature>> = {
  "com.microsoft.MultiHeadAttention": {
    heads: "num_heads",
    groups: "num_heads",
    inputs: { bias: 3, mask: 4, attentionBias: 5, past: 6 },
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
  const shape = tracer.value(graph, node.input[0]!).shape;
  const headsFirst = shape?.length === 4;
  const heads = headsFirst ? shape[1]! : intAttribute(node, headsName, 1);
  const bias = input(inputs.bias);
  const biases = bias === undefined ? [] : splitBias(tracer, graph, bias);
  if (biases === undefined) return { reason: "its bias isn't a constant" };
  const views: Partial<Views> = {};
  for (const [part, name] of (["query", "key", "value"] as const).entries()) {
    const operand = input(part);
    const trace = operand === undefined ? undefined : tracer.trace(graph, operand);
    if (trace === undefined) return { reason: `its ${name} isn't given by itself, or its shape isn't known` };
    const own = part === 0 ? heads : headsFirst ? trace.shape[1]! : intAttribute(node, groupsName, heads);
    const stacked = repeated(headsFirst ? trace : splitHeads(trace, { heads: own, bias: biases[part] }), heads);
    const view = readHeads(tracer, stacked, false);
    if (typeof view === "string") return { reason: `the ${name} can't be followed: ${view}` };
    views[name] = view;
  }
  const mask = input(inputs.mask);
  const attentionBias = input(inputs.attentionBias);
  const found = { graph, node, views: views as Views, biases, mask, attentionBias };
  return finish(tracer, found, { past: input(inputs.past), headsFirst });
}

interface Found {
  readonly graph: Graph;
  readonly node: NodeProto;
  readonly views: Views;
  /** Biases that the operator adds to its inputs. */
  readonly biases: readonly Float32Array[];
  readonly mask: string | undefined;
  readonly attentionBias: string | undefined;
}

function finish(
  tracer: Tracer,
  { graph, node, views, biases, mask, attentionBias }: Found,
  { past, headsFirst }: { readonly past: string | undefined; readonly headsFirst: boolean },
): Verdict {
  const { query, key, value } = views;
  if (query.headSize !== value.headSize || key.projection.rows !== query.projection.rows) {
    return { reason: "query, key and value have different sizes: they don't stack into one tensor" };
  }
  const context = node.output[0]!;
  const output = readOutput(tracer, graph, { context, heads: query.heads, headSize: value.headSize });
  if (typeof output === "string") return { reason: output };
  const fused: FusedOperator = {
    node,
    biases,
    mask,
    attentionBias,
    scale: floatAttribute(node, "scale", 0) || 1 / Math.sqrt(query.headSize),
    headsFirst,
  };
  const parts: SiteParts = {
    graph,
    anchor: node,
    ...views,
    output,
    scores: context,
    probabilities: context,
    context,
    fused,
  };
  const capped = floatAttribute(node, "softcap", 0) > 0 ? "softcap" : undefined;
  const judged = judgeSpaces(tracer, parts, { notAdditive: capped, rowSumBroken: undefined });
  const inside = insideProblem(node, past);
  const [, presentKey, presentValue] = node.output;
  const present = { key: presentKey || undefined, value: presentValue || undefined };
  if (inside === undefined) return { site: { ...parts, ...judged } };
  return { site: { ...parts, present, queryKeyExpandedBecause: inside, valueOutputExpandedBecause: inside } };
}

/** What an operator does inside that needs heads of full size. */
function insideProblem(node: NodeProto, past: string | undefined): string | undefined {
  if (past !== undefined || node.output[1]) return `${operatorOf(node)} keeps its cache itself, at full size`;
  if (node.opType === "GroupQueryAttention") return "com.microsoft.GroupQueryAttention runs at full size only";
  return node.output[3] ? `${operatorOf(node)} gives its scores out` : undefined;
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
