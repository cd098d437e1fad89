/**
 * Descriptions of model inputs and outputs.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { withFields } from "./codec.ts";
import { mapGraph } from "./map_graph.ts";
import type { OnnxModel } from "./model.ts";
import { TensorShapeProto_DimensionSchema, type ValueInfoProto, ValueInfoProtoSchema } from "./gen/onnx_pb.ts";

/** A tensor's name, element type and dimensions: fixed sizes as numbers, dynamic ones by name. */
export function tensorInfo(name: string, elemType: number, shape: readonly (number | string)[]): ValueInfoProto {
  const dim = shape.map((size) => ({ value: dimensionOf(size) }));
  return create(ValueInfoProtoSchema, { name, type: { tensorType: { elemType, shape: { dim } } } });
}

/** A tensor's name and element type, of any shape. */
export function typeInfo(name: string, elemType: number): ValueInfoProto {
  return create(ValueInfoProtoSchema, { name, type: { tensorType: { elemType } } });
}

/** The same description with another size, or name of a dynamic size, in one dimension. */
export function withDimension(info: ValueInfoProto, axis: number, size: number | string): ValueInfoProto {
  const tensorType = info.type?.tensorType;
  if (info.type === undefined || tensorType?.shape === undefined) return info;
  const dim = tensorType.shape.dim.with(axis, create(TensorShapeProto_DimensionSchema, { value: dimensionOf(size) }));
  const shape = withFields(tensorType.shape, { dim });
  return withFields(info, { type: withFields(info.type, { tensorType: withFields(tensorType, { shape }) }) });
}

/** A model in which dynamic sizes of these names, and sums of one and a number, are fixed. */
export function withSizes(model: OnnxModel, sizes: ReadonlyMap<string, number>): OnnxModel {
  if (model.proto.graph === undefined) return model;
  const fixed = (name: string): number | undefined => {
    const [, first, more = "0"] = /^(.+?)(?: \+ (\d+))?$/.exec(name) ?? [];
    const size = sizes.get(first ?? "");
    return size === undefined ? undefined : size + Number(more);
  };
  const value = (info: ValueInfoProto): ValueInfoProto =>
    (info.type?.tensorType?.shape?.dim ?? []).reduce((result, dim, axis) => {
      const size = dim.value.case === "dimParam" ? fixed(dim.value.value) : undefined;
      return size === undefined ? result : withDimension(result, axis, size);
    }, info);
  return { ...model, proto: withFields(model.proto, { graph: mapGraph(model.proto.graph, { value }) }) };
}

type DimensionValue = { case: "dimValue"; value: bigint } | { case: "dimParam"; value: string };

function dimensionOf(size: number | string): DimensionValue {
  return typeof size === "number" ? { case: "dimValue", value: BigInt(size) } : { case: "dimParam", value: size };
}
