/**
 * Projections that read a new matrix: the same nodes otherwise.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import { makeNode } from "../../onnx/node.ts";
import type { Projection } from "../trace/projection.ts";
import type { ModelWriter } from "./writer.ts";

/** A copy of the projection's node that reads the new matrix. */
export function writeProjection(writer: ModelWriter, projection: Projection, name: string): void {
  const { node, graph, stream, alpha, beta, bias } = projection;
  const inputs = bias === undefined ? [stream, name] : [stream, name, bias];
  if (node.opType === "Attention") {
    writer.put(graph, withFields(node, { input: node.input.with(1, name) }));
    return;
  }
  if (node.opType === "FusedMatMul") {
    const options = { name: node.name, domain: node.domain, attributes: { alpha } };
    writer.put(graph, makeNode("FusedMatMul", inputs, node.output, options));
    return;
  }
  // ONNX Runtime rounds the matrix of a Gemm between dequantisation and quantisation to 8 bits, a MatMul's it leaves alone.
  if (node.opType === "Gemm" && graph.producer(stream)?.opType === "DequantizeLinear") {
    writeProduct(writer, projection, name);
    return;
  }
  const gemm = node.opType === "Gemm";
  if (!gemm && bias !== undefined) {
    const product = writer.node(graph, "MatMul", {
      inputs: [stream, name],
      label: `${node.name || node.output[0]}/MatMul`,
    });
    writer.put(graph, makeNode("Add", [product, bias], node.output, { name: node.name }));
    return;
  }
  const attributes = gemm ? { attributes: { alpha, beta } } : {};
  writer.put(graph, makeNode(gemm ? "Gemm" : "MatMul", inputs, node.output, { name: node.name, ...attributes }));
}

/** A Gemm with another matrix as MatMul, Mul and Sub: ONNX Runtime makes a Gemm of MatMul and Add again. */
function writeProduct(
  writer: ModelWriter,
  { node, graph, elementType, stream, alpha, beta, bias }: Projection,
  matrix: string,
): void {
  const label = node.name || node.output[0]!;
  const steps: [opType: string, other: string][] = [["MatMul", matrix]];
  if (alpha !== 1) steps.push(["Mul", writer.scalar(Math.fround(alpha), elementType)]);
  if (bias !== undefined) {
    const inputs = [bias, writer.scalar(-Math.fround(beta), elementType)];
    steps.push(["Sub", writer.node(graph, "Mul", { inputs, label: `${label}/bias` })]);
  }
  steps.reduce((value, [opType, other], i) =>
    writer.node(graph, opType, {
      inputs: [value, other],
      label: `${label}/${opType}`,
      output: i === steps.length - 1 ? node.output[0] : undefined,
    }), stream);
}
