/**
 * Edits of graphs by replacement: nothing of the edited graph is changed, the result shares its nodes and tensors.
 *
 * @module
 */
import { withFields } from "./codec.ts";
import { freeNames, type Graph, readNames } from "./graph.ts";
import { type GraphProto, type NodeProto, subgraphsOf, type TensorProto, type ValueInfoProto } from "./node.ts";
import { inOrder } from "./order.ts";

/** What to change in one graph. New nodes may take over the output names of removed ones. */
export interface GraphEdit {
  readonly removed: ReadonlySet<NodeProto>;
  readonly added: readonly NodeProto[];
  readonly initializers: readonly TensorProto[];
  readonly inputs: readonly ValueInfoProto[];
  /** Inputs and outputs whose type changes, by name. */
  readonly retyped?: ReadonlyMap<string, ValueInfoProto>;
}

/**
 * Applies edits to a graph and its subgraphs, then drops what no output needs any more and puts the nodes in an order in
 * which every value is made before it is read.
 *
 * Precondition: after the edit every read value has exactly one producer. Postcondition: the same, no dead node or
 * initializer (unless they are asked for), nodes in topological order, inputs and outputs as before plus the edit's inputs.
 */
export function applyEdits(graph: Graph, edits: ReadonlyMap<Graph, GraphEdit>, dead?: "kept"): GraphProto {
  const subgraphs = new Map<GraphProto, GraphProto>();
  for (const subgraph of graph.subgraphs) {
    const edited = applyEdits(subgraph, edits, dead);
    if (edited !== subgraph.proto) subgraphs.set(subgraph.proto, edited);
  }
  const edit = edits.get(graph);
  if (edit === undefined && subgraphs.size === 0) return graph.proto;
  const kept = graph.proto.node.filter((node) => edit?.removed.has(node) !== true)
    .map((node) => withSubgraphs(node, subgraphs));
  const nodes = [...kept, ...edit?.added ?? []];
  if (dead === "kept") return changed(graph.proto, { nodes: inOrder(nodes), edit, needed: () => true });
  const live = orderedLive(nodes, graph.proto.output.map((output) => output.name));
  const read = freeNames(withFields(graph.proto, { node: live, input: [], initializer: [] }));
  return changed(graph.proto, { nodes: live, edit, needed: (name) => read.has(name) });
}

/** Names that no value and no node of a graph and its subgraphs has. */
export class NameSource {
  readonly #taken = new Set<string>();

  constructor(graph: Graph) {
    for (const scope of graph.all()) {
      for (const { name } of [...scope.proto.input, ...scope.proto.initializer]) this.#taken.add(name);
      for (const node of scope.proto.node) for (const name of [node.name, ...node.output]) this.#taken.add(name);
    }
  }

  /** `wanted`, or the first free of `wanted_2`, `wanted_3`… */
  fresh(wanted: string): string {
    let name = wanted;
    for (let n = 2; this.#taken.has(name); n++) name = `${wanted}_${n}`;
    this.#taken.add(name);
    return name;
  }
}

function withSubgraphs(node: NodeProto, edited: ReadonlyMap<GraphProto, GraphProto>): NodeProto {
  if (![...subgraphsOf(node)].some(({ graph }) => edited.has(graph))) return node;
  const attribute = node.attribute.map((entry) =>
    withFields(entry, {
      ...(entry.g === undefined ? {} : { g: edited.get(entry.g) ?? entry.g }),
      graphs: entry.graphs.map((graph) => edited.get(graph) ?? graph),
    })
  );
  return withFields(node, { attribute });
}

/** The nodes that `outputs` depend on, each behind the nodes it reads, otherwise in the given order. */
function orderedLive(nodes: readonly NodeProto[], outputs: readonly string[]): NodeProto[] {
  const producers = new Map<string, NodeProto>();
  for (const node of nodes) for (const output of node.output) if (output !== "") producers.set(output, node);
  const live = new Set<NodeProto>();
  const pending = [...outputs];
  while (pending.length > 0) {
    const node = producers.get(pending.pop()!);
    if (node === undefined || live.has(node)) continue;
    live.add(node);
    pending.push(...readNames(node));
  }
  return inOrder(nodes.filter((node) => live.has(node)));
}

/** The graph with other nodes, the edit's values, and those initializers that are needed. */
function changed(
  graph: GraphProto,
  { nodes: node, edit, needed }: {
    readonly nodes: NodeProto[];
    readonly edit: GraphEdit | undefined;
    readonly needed: (name: string) => boolean;
  },
): GraphProto {
  const initializer = [...graph.initializer, ...edit?.initializers ?? []].filter(({ name }) => needed(name));
  const dropped = new Set(graph.initializer.map(({ name }) => name).filter((name) => !needed(name)));
  const made = new Set(node.flatMap(({ output }) => output));
  const retype = (value: ValueInfoProto): ValueInfoProto => edit?.retyped?.get(value.name) ?? value;
  return withFields(graph, {
    node,
    initializer,
    input: [...graph.input.filter(({ name }) => !dropped.has(name)), ...edit?.inputs ?? []].map(retype),
    output: graph.output.map(retype),
    valueInfo: graph.valueInfo.filter(({ name }) => made.has(name)),
  });
}
