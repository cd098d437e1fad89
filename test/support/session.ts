/**
 * Runs ONNX models in tests, through onnxruntime-node.
 *
 * @module
 */
import { float16ToFloat32, float32ToFloat16 } from "../../src/onnx/float16.ts";
import { TensorProto_DataLocation } from "../../src/onnx/gen/onnx_pb.ts";
import { encodeModel, type OnnxModel, tensorsOf } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import type * as types from "../../src/onnx_runtime.ts";
import { type Nested, nestedNumbers, nestedShape } from "./oracle.ts";

// Deno's Float16Array reaches ONNX Runtime as an empty buffer; without it, bit patterns in a Uint16Array are taken.
Reflect.deleteProperty(globalThis, "Float16Array");
const ort = await import("../../src/onnx_runtime.ts");

/** A tensor to feed or a result. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

/** A loaded model. Dispose it to free it. */
export class TestSession implements AsyncDisposable {
  readonly #session: types.InferenceSession;

  private constructor(session: types.InferenceSession) {
    this.#session = session;
  }

  /** Loads a model from memory, or from the file it names where it has external data. */
  static async load(model: OnnxModel | { readonly path: string }): Promise<TestSession> {
    const options = { logSeverityLevel: 3, intraOpNumThreads: 1, extra: ort.modelSettings("cpu") } as const;
    if (!("proto" in model)) return new TestSession(await ort.InferenceSession.create(model.path, options));
    const external = model.later !== undefined ||
      [...tensorsOf(model.proto.graph!)].some((tensor) => tensor.dataLocation === TensorProto_DataLocation.EXTERNAL);
    if (!external) return new TestSession(await ort.InferenceSession.create(encodeModel(model), options));
    const folder = await Deno.makeTempDir();
    await saveModel(model, `${folder}/model.onnx`);
    const session = await ort.InferenceSession.create(`${folder}/model.onnx`, options);
    await Deno.remove(folder, { recursive: true });
    return new TestSession(session);
  }

  /** Dimensions of the model's inputs, dynamic ones by name. */
  get inputShapes(): Readonly<Record<string, readonly (number | string)[]>> {
    return Object.fromEntries(
      this.#session.inputMetadata.flatMap((info) => info.isTensor ? [[info.name, info.shape] as const] : []),
    );
  }

  /** Names of the model's inputs. */
  get inputs(): readonly string[] {
    return this.#session.inputNames;
  }

  /**
   * Runs the model. Integers and booleans of `inputs` become the model's types, `factors` are float32. A past that isn't
   * given is empty; `sizes` are those of its named dimensions that aren't 0.
   */
  async run(
    inputs: Readonly<Record<string, Nested>>,
    factors: Readonly<Record<string, Numbers>> = {},
    sizes: Readonly<Record<string, number>> = {},
  ): Promise<Record<string, Numbers>> {
    const feeds: Record<string, types.Tensor> = {};
    const withPast = [...Object.keys(inputs), ...Object.keys(factors)].some((name) =>
      name.startsWith("past_key_values.")
    );
    const batch = nestedShape(Object.values(inputs)[0] ?? [])[0] ?? 1;
    for (const info of this.#session.inputMetadata) {
      const { name } = info;
      const factor = factors[name];
      if (factor !== undefined) feeds[name] = numbersOf(info.isTensor ? info.type : "float32", factor);
      else if (!info.isTensor) throw new TypeError(`input ${name} isn't a tensor`);
      else if (inputs[name] !== undefined) feeds[name] = tensorOf(info.type, inputs[name]);
      else if (name === "use_cache_branch") feeds[name] = new ort.Tensor("bool", [withPast], [1]);
      else if (name.startsWith("past_key_values.")) feeds[name] = emptyPast(info, { batch, sizes });
    }
    const results = await this.#session.run(feeds);
    return Object.fromEntries(
      Object.entries(results).map(([name, tensor]) => [name, {
        shape: tensor.dims,
        data: tensor.type === "float16"
          ? float16ToFloat32(tensor.data as unknown as Uint16Array)
          : tensor.data as Float32Array,
      }]),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.release();
  }
}

function numbersOf(type: types.Tensor.Type, { shape, data }: Numbers): types.Tensor {
  if (type === "float16") return new ort.Tensor("float16", float32ToFloat16(Float32Array.from(data)), shape);
  if (type === "int32") return new ort.Tensor("int32", Int32Array.from(data), shape);
  if (type === "int64") return new ort.Tensor("int64", BigInt64Array.from(Array.from(data), BigInt), shape);
  if (type === "bool") return new ort.Tensor("bool", Uint8Array.from(data), shape);
  return new ort.Tensor("float32", Float32Array.from(data), shape);
}

/** A cache without tokens: the dynamic dimension behind the batch is the past. */
function emptyPast(
  { type, shape }: { readonly type: types.Tensor.Type; readonly shape: readonly (number | string)[] },
  { batch, sizes }: { readonly batch: number; readonly sizes: Readonly<Record<string, number>> },
): types.Tensor {
  const dims = shape.map((size, i) =>
    i === 0 ? batch : typeof size === "number" ? Math.max(size, 0) : namedSize(size, sizes)
  );
  return type === "float16"
    ? new ort.Tensor("float16", new Uint16Array(0), dims)
    : new ort.Tensor("float32", new Float32Array(0), dims);
}

/** `layer0.r1`, or a sum such as `layer0.r1 + 8`; 0 for unknown names. */
function namedSize(name: string, sizes: Readonly<Record<string, number>>): number {
  const [first, more] = name.split(" + ") as [string, string?];
  return first in sizes ? sizes[first]! + Number(more ?? 0) : 0;
}

function tensorOf(type: types.Tensor.Type, nested: Nested): types.Tensor {
  if (type === "float16") return numbersOf(type, { shape: nestedShape(nested), data: nestedNumbers(nested) });
  const shape = nestedShape(nested);
  const numbers = nestedNumbers(nested);
  if (type === "int64") return new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), shape);
  if (type === "bool") return new ort.Tensor("bool", Uint8Array.from(numbers), shape);
  return new ort.Tensor("float32", Float32Array.from(numbers), shape);
}
