/**
 * ONNX Runtime's error texts as domain errors. Its messages begin with source paths and function names of its build, which
 * help nobody here; the sentence behind them does.
 *
 * @module
 */
import type { GraphSource } from "../compress/artifact.ts";
import { TuckerdError } from "../errors.ts";

/** A session that couldn't be built: the graph's fault (`bad-model`), unless memory ran out (`failed`). */
export function sessionError(error: unknown, graph: GraphSource): TuckerdError {
  const reason = sentence(error);
  const what = "path" in graph ? `the ONNX file ${graph.path}` : `the ONNX graph (${graph.bytes.byteLength} bytes)`;
  if (/bad_alloc|out of memory|failed to allocate/i.test(reason)) {
    return new TuckerdError(
      "failed",
      `Could not load ${what}: memory ran out (${reason}); free memory or use a smaller model`,
      { cause: error },
    );
  }
  return new TuckerdError(
    "bad-model",
    `ONNX Runtime could not load ${what}: ${reason}; check that the file is complete and uses operators that ONNX Runtime 1.30 has`,
    { cause: error },
  );
}

/** A run that failed inside ONNX Runtime although names, types and ranks of its inputs had been checked. */
export function runError(error: unknown, generation: number): TuckerdError {
  return new TuckerdError("failed", `ONNX Runtime could not run generation ${generation}: ${sentence(error)}`, {
    cause: error,
    fields: { generation },
  });
}

/** The message without its leading status code, source location and function signature. */
export function sentence(error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error)).trim();
  return text
    .replace(/^Error code - \d+ - message:\s*/, "")
    .replace(/\/\S+\.(?:cc|h|cpp):\d+\s+(?:[^\n]*?\)(?:::<lambda\(\)>)?(?:\s+const)?\s+)?/g, "")
    .replace(/\s+/g, " ")
    .slice(0, 500);
}
