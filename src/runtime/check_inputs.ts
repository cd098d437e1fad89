/**
 * Checks a run's inputs against what the model takes, before they travel to the worker: ONNX Runtime's own messages name
 * neither the rule nor all that is wrong.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { HostTensor, TensorInfo } from "./types.ts";

/** Throws `invalid` unless there is exactly one well-formed tensor for each of the model's inputs. */
export function checkInputs(expected: readonly TensorInfo[], given: Readonly<Record<string, HostTensor>>): void {
  const names = expected.map(({ name }) => name);
  const unknown = Object.keys(given).filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    throw invalid(`Unknown model input ${unknown.join(", ")}; the model takes ${names.join(", ")}`, {
      inputs: unknown,
    });
  }
  for (const info of expected) {
    const tensor = Object.hasOwn(given, info.name) ? given[info.name] : undefined;
    if (tensor === undefined) {
      throw invalid(`Missing model input "${info.name}"; the model takes ${names.join(", ")}`, { input: info.name });
    }
    checkTensor(info, tensor);
  }
}

function checkTensor(info: TensorInfo, tensor: HostTensor): void {
  const shape = `[${tensor.shape.join(", ")}]`;
  if (tensor.type !== info.type) {
    throw invalid(`Model input "${info.name}" takes ${info.type}, got ${tensor.type}`, { input: info.name });
  }
  const fits = tensor.shape.length === info.shape.length &&
    info.shape.every((size, axis) => typeof size === "string" || size === tensor.shape[axis]);
  if (!fits) {
    throw invalid(`Model input "${info.name}" takes shape [${info.shape.join(", ")}], got ${shape}`, {
      input: info.name,
    });
  }
  const elements = tensor.shape.reduce((product, size) => product * size, 1);
  if (tensor.data.length !== elements) {
    throw invalid(
      `Model input "${info.name}" of shape ${shape} needs ${elements} elements, got ${tensor.data.length}`,
      {
        input: info.name,
      },
    );
  }
}

function invalid(message: string, fields: Record<string, unknown>): TuckerdError {
  return new TuckerdError("invalid", message, { fields });
}
