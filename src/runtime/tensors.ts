/**
 * Between `HostTensor` and ONNX Runtime's tensors and metadata. Only inference workers import this file.
 *
 * @module
 */
import { type InferenceSession, Tensor } from "../onnx_runtime.ts";
import { TuckerdError } from "../errors.ts";
import type { HostTensor, TensorInfo, TensorType } from "./types.ts";

const tensorTypes: readonly string[] = ["float32", "float16", "int64", "int32", "bool"] satisfies TensorType[];

/** A tensor that ONNX Runtime takes, over the same memory. */
export function toOrt(tensor: HostTensor): Tensor {
  return new Tensor(tensor.type, tensor.data, tensor.shape);
}

/** A tensor that may be posted; `unsupported` for element types that no model of the field gives. */
export function fromOrt(name: string, tensor: Tensor): HostTensor {
  return {
    type: checkedType(name, tensor.type),
    shape: tensor.dims,
    data: tensor.data as HostTensor["data"], // of the array kind that belongs to the type just checked
  };
}

/** Names, types and dimensions of a session's inputs or outputs. */
export function tensorInfos(metadata: readonly InferenceSession.ValueMetadata[]): TensorInfo[] {
  return metadata.map((value) => {
    if (!value.isTensor) {
      throw new TuckerdError(
        "unsupported",
        `Model value "${value.name}" is a sequence or map; only tensors can be served`,
      );
    }
    return { name: value.name, type: checkedType(value.name, value.type), shape: value.shape };
  });
}

function checkedType(name: string, type: string): TensorType {
  if (tensorTypes.includes(type)) return type as TensorType;
  throw new TuckerdError(
    "unsupported",
    `Model value "${name}" has element type ${type}; tuckerd serves ${tensorTypes.join(", ")}`,
  );
}
