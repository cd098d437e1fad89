/**
 * A graph with other tensors in the places of its own.
 *
 * @module
 */
import { withFields } from "./codec.ts";
import type { AttributeProto, GraphProto, NodeProto, TensorProto } from "./gen/onnx_pb.ts";

/** What a tensor becomes; itself where nothing changes. */
export type TensorChange = (tensor: TensorProto) => TensorProto;

/** Applies `change` to initializers and to tensors in attributes, in subgraphs too. What doesn't change is shared. */
export function mapTensors(graph: GraphProto, change: TensorChange): GraphProto {
  const node = mapped(graph.node, (each) => mapNode(each, change));
  const initializer = mapped(graph.initializer, change);
  return node === graph.node && initializer === graph.initializer ? graph : withFields(graph, { node, initializer });
}

function mapNode(node: NodeProto, change: TensorChange): NodeProto {
  const attribute = mapped(node.attribute, (each) => mapAttribute(each, change));
  return attribute === node.attribute ? node : withFields(node, { attribute });
}

function mapAttribute(attribute: AttributeProto, change: TensorChange): AttributeProto {
  const t = attribute.t && change(attribute.t);
  const g = attribute.g && mapTensors(attribute.g, change);
  const tensors = mapped(attribute.tensors, change);
  const graphs = mapped(attribute.graphs, (graph) => mapTensors(graph, change));
  const same = t === attribute.t && g === attribute.g && tensors === attribute.tensors && graphs === attribute.graphs;
  if (same) return attribute;
  return withFields(attribute, { ...(t && { t }), ...(g && { g }), tensors, graphs });
}

/** The list itself where every element stays. */
function mapped<T>(list: T[], change: (element: T) => T): T[] {
  const result = list.map(change);
  return result.every((element, i) => element === list[i]) ? list : result;
}
