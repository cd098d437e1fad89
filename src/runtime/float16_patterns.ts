/**
 * Imported for its effect, before onnxruntime-node, inside an inference worker. onnxruntime-node 1.30 reads a float16
 * tensor held in a `Float16Array` as empty under Deno ("not enough space: expected N, got 0"). Where that global is
 * missing it takes and gives bit patterns in a `Uint16Array`, which work; `HostTensor` holds float16 in that form.
 *
 * @module
 */
Reflect.deleteProperty(globalThis, "Float16Array");
