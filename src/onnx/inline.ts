/**
 * Functions of a model's own, which some exporters make of modules, put in the place of their calls, so that finder and rewriters see
 * all operators in graphs:
 *
 *     y = my.Layer(x, W)   with   Layer(a, b): c = MatMul(a, b); d = Relu(c); return d
 *     →  my.Layer/c = MatMul(x, W);  y = Relu(my.Layer/c)
 *
 * A model computes the same afterwards. ONNX IR specification, "Functions".
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { withFields } from "./codec.ts";
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto } from "./gen/onnx_pb.ts";
import { makeNode, nodeName, subgraphsOf } from "./node.ts";

/**
 * The model without calls of its functions; the very same one where it has none. A function that is written for another version of the
 * operators in it than the model imports stays, with its calls: see `versionProblem`.
 *
 * @throws TuckerdError "bad-model" if a function calls itself.
 */
export function inlineFunctions(model: ModelProto): ModelProto {
  if (model.functions.length === 0 || model.graph === undefined) return model;
  const inliner = new Inliner(model, model.graph);
  const graph = inliner.graph(model.graph, []);
  const known = new Set(model.opsetImport.map(({ domain }) => standard(domain)));
  const opsetImport = [...model.opsetImport];
  for (const imported of inliner.inlined.flatMap((each) => each.opsetImport)) {
    if (known.has(standard(imported.domain))) continue;
    known.add(standard(imported.domain));
    opsetImport.push(imported);
  }
  const functions = inliner.left ? model.functions : [];
  return withFields(model, { graph, opsetImport, functions });
}

/** The function that a node calls. */
export function calledFunction(functions: readonly FunctionProto[], node: NodeProto): FunctionProto | undefined {
  return functions.find(({ domain, name, overload }) =>
    name === node.opType && standard(domain) === standard(node.domain) && overload === node.overload
  );
}

/** Why a function can't stand in the place of its calls: the versions of an operator set that it and its model import differ. */
export function versionProblem(model: ModelProto, { name, node, opsetImport }: FunctionProto): string | undefined {
  const used = domainsOf(node);
  for (const { domain, version } of opsetImport) {
    const own = model.opsetImport.find((each) => standard(each.domain) === standard(domain));
    if (own === undefined || own.version === version || !used.has(standard(domain))) continue;
    const set = standard(domain) === "" ? "the standard operators" : `the operators of ${domain}`;
    return `its function ${name} is written for version ${version} of ${set}, and the model for ${own.version}`;
  }
  return undefined;
}

class Inliner {
  readonly inlined: FunctionProto[] = [];
  /** Whether calls are left. */
  left = false;
  readonly #model: ModelProto;
  readonly #values: Set<string>;
  readonly #nodes: Set<string>;

  constructor(model: ModelProto, graph: GraphProto) {
    this.#model = model;
    this.#values = new Set(valuesIn(graph));
    this.#nodes = new Set(nodesIn(graph));
  }

  /** @param around the functions whose bodies this is in */
  graph(graph: GraphProto, around: readonly FunctionProto[]): GraphProto {
    return withFields(graph, { node: graph.node.flatMap((node) => this.#node(node, around)) });
  }

  #node(node: NodeProto, around: readonly FunctionProto[]): NodeProto[] {
    const called = calledFunction(this.#model.functions, node);
    if (called === undefined) {
      const attribute = node.attribute.map((each) => withGraphs(each, (graph) => this.graph(graph, around)));
      return [subgraphsOf(node).next().done ? node : withFields(node, { attribute })];
    }
    if (around.includes(called)) {
      throw new TuckerdError("bad-model", `the model's function ${called.name} calls itself, which ONNX doesn't allow`);
    }
    if (versionProblem(this.#model, called) !== undefined) {
      this.left = true;
      return [node];
    }
    if (!this.inlined.includes(called)) this.inlined.push(called);
    return this.#body(node, called).flatMap((each) => this.#node(each, [...around, called]));
  }

  /** The nodes of a function under names of their own, with the values and attributes of a call. */
  #body(call: NodeProto, called: FunctionProto): NodeProto[] {
    const prefix = nodeName(call);
    const names = new Map<string, string>([["", ""]]);
    called.input.forEach((name, i) => names.set(name, call.input[i] ?? ""));
    const passed: NodeProto[] = [];
    called.output.forEach((name, i) => {
      const output = call.output[i] ?? "";
      if (output === "") return;
      // What goes straight through, or out twice, has a name already.
      if (names.has(name)) passed.push(makeNode("Identity", [names.get(name)!], [output]));
      else names.set(name, output);
    });
    const value = (name: string): string => {
      let renamed = names.get(name);
      if (renamed === undefined) names.set(name, renamed = fresh(this.#values, `${prefix}/${name}`));
      return renamed;
    };
    const given = (name: string): AttributeProto | undefined =>
      [...call.attribute, ...called.attributeProto].find((attribute) => attribute.name === name);
    const nodeOf = (node: NodeProto): NodeProto =>
      withFields(node, {
        input: node.input.map(value),
        output: node.output.map(value),
        name: fresh(this.#nodes, `${prefix}/${nodeName(node)}`),
        attribute: node.attribute.flatMap((attribute) => {
          if (attribute.refAttrName === "") return withGraphs(attribute, graphOf);
          const { name } = attribute;
          const found = given(attribute.refAttrName);
          return found === undefined ? [] : withFields(found, { name });
        }),
      });
    const graphOf = (graph: GraphProto): GraphProto =>
      withFields(graph, {
        input: graph.input.map((info) => withFields(info, { name: value(info.name) })),
        initializer: graph.initializer.map((tensor) => withFields(tensor, { name: value(tensor.name) })),
        node: graph.node.map(nodeOf),
        output: graph.output.map((info) => withFields(info, { name: value(info.name) })),
        valueInfo: [],
      });
    return [...called.node.map(nodeOf), ...passed];
  }
}

/** A name that isn't taken, and is from now on. */
function fresh(taken: Set<string>, wanted: string): string {
  let name = wanted;
  for (let i = 1; taken.has(name); i++) name = `${wanted}.${i}`;
  taken.add(name);
  return name;
}

function withGraphs(attribute: AttributeProto, change: (graph: GraphProto) => GraphProto): AttributeProto {
  const { g, graphs } = attribute;
  if (g === undefined && graphs.length === 0) return attribute;
  return withFields(attribute, { ...(g === undefined ? {} : { g: change(g) }), graphs: graphs.map(change) });
}

/** Names of values in a graph and its subgraphs. */
function* valuesIn(graph: GraphProto): Generator<string> {
  for (const { name } of [...graph.input, ...graph.initializer]) yield name;
  for (const node of graph.node) {
    yield* node.output;
    for (const { graph } of subgraphsOf(node)) yield* valuesIn(graph);
  }
}

/** Names of nodes in a graph and its subgraphs: ONNX Runtime wants them to differ. */
function* nodesIn(graph: GraphProto): Generator<string> {
  for (const node of graph.node) {
    yield node.name;
    for (const { graph } of subgraphsOf(node)) yield* nodesIn(graph);
  }
}

/** Domains of the operators among nodes and in their subgraphs. */
function domainsOf(nodes: readonly NodeProto[]): Set<string> {
  return new Set(nodes.flatMap((node) => [
    standard(node.domain),
    ...[...subgraphsOf(node)].flatMap(({ graph }) => [...domainsOf(graph.node)]),
  ]));
}

function standard(domain: string): string {
  return domain === "ai.onnx" ? "" : domain;
}
