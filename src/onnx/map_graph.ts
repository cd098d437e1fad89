/**
 * A graph with other tensors and descriptions of values in the places of its own, in subgraphs too.
 *
 * @module
 */
import { withFields } from "./codec.ts";
import type { AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto } from "./gen/onnx_pb.ts";

/** What becomes of each part; itself where nothing changes. */
export interface GraphChange {
  /** Of initializers, and of tensors in attributes. */
  readonly tensor?: (tensor: TensorProto) => TensorProto;
  /** Of inputs, outputs and values between. */
  readonly value?: (info: ValueInfoProto) => ValueInfoProto;
}

/** Applies a change everywhere. What doesn't change is shared. */
export function mapGraph(graph: GraphProto, change: GraphChange): GraphProto {
  const { tensor = same, value = same } = change;
  const parts = {
    node: mapped(graph.node, (node) => mapNode(node, change)),
    initializer: mapped(graph.initializer, tensor),
    input: mapped(graph.input, value),
    output: mapped(graph.output, value),
    valueInfo: mapped(graph.valueInfo, value),
  };
  const changed = (Object.keys(parts) as (keyof typeof parts)[]).some((key) => parts[key] !== graph[key]);
  return changed ? withFields(graph, parts) : graph;
}

function mapNode(node: NodeProto, change: GraphChange): NodeProto {
  const attribute = mapped(node.attribute, (each) => mapAttribute(each, change));
  return attribute === node.attribute ? node : withFields(node, { attribute });
}

function mapAttribute(attribute: AttributeProto, change: GraphChange): AttributeProto {
  const { tensor = same } = change;
  const t = attribute.t && tensor(attribute.t);
  const g = attribute.g && mapGraph(attribute.g, change);
  const tensors = mapped(attribute.tensors, tensor);
  const graphs = mapped(attribute.graphs, (graph) => mapGraph(graph, change));
  if (t === attribute.t && g === attribute.g && tensors === attribute.tensors && graphs === attribute.graphs) {
    return attribute;
  }
  return withFields(attribute, { ...(t && { t }), ...(g && { g }), tensors, graphs });
}

/** The list itself where every element stays. */
function mapped<T>(list: T[], change: (element: T) => T): T[] {
  const result = list.map(change);
  return result.every((element, i) => element === list[i]) ? list : result;
}

function same<T>(part: T): T {
  return part;
}
