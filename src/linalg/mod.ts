/**
 * Small dense linear algebra: matrix products on ONNX Runtime, symmetric eigenproblems, orthonormalisation.
 *
 * @module
 */
export * from "./block_subspace.ts";
export * from "./dots.ts";
export * from "./graph_model.ts";
export * from "./graph_runner.ts";
export * from "./matmul.ts";
export * from "./noise.ts";
export * from "./orthonormal.ts";
export * from "./symmetric_eigen.ts";
export * from "./transpose.ts";
