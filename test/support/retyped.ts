/**
 * Models in another real type.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import { withFields } from "../../src/onnx/codec.ts";
import { mapGraph } from "../../src/onnx/map_graph.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type NodeProto, subgraphsOf, type ValueInfoProto } from "../../src/onnx/node.ts";
import { floatTensor, readFloats, tensorShape } from "../../src/onnx/tensor.ts";

/** The model with one real type in the place of another: tensors, values and casts. Its graph has no subgraphs. */
export function retyped({ proto, path, folder }: OnnxModel, from: number, to: number): OnnxModel {
  const graph = mapGraph(proto.graph!, {
    tensor: (tensor) =>
      tensor.dataType === from ? floatTensor(tensor.name, tensorShape(tensor), readFloats(tensor, folder), to) : tensor,
    value: (info: ValueInfoProto): ValueInfoProto => {
      const tensorType = info.type?.tensorType;
      if (tensorType?.elemType !== from) return info;
      return withFields(info, {
        type: withFields(info.type!, { tensorType: withFields(tensorType, { elemType: to }) }),
      });
    },
  });
  const node = graph.node.map((each): NodeProto => {
    assertEquals([...subgraphsOf(each)], []);
    const attribute = each.attribute.map((entry) =>
      entry.name === "to" && Number(entry.i) === from ? withFields(entry, { i: BigInt(to) }) : entry
    );
    return withFields(each, { attribute });
  });
  return { proto: withFields(proto, { graph: withFields(graph, { node }) }), path, folder };
}
