/**
 * Types of model outputs that a rewrite changes.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import type { ValueInfoProto } from "../../onnx/node.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Changes the type of an output of the site's graph, and of the If outputs around that pass it on. */
export function retypeOutput(
  at: SiteWriter,
  output: string,
  change: (info: ValueInfoProto) => ValueInfoProto,
): void {
  let graph: Graph | undefined = at.graph;
  let name: string | undefined = output;
  while (graph !== undefined && name !== undefined) {
    const index: number = graph.proto.output.findIndex((info) => info.name === name);
    if (index === -1) return;
    at.writer.retype(graph, change(graph.proto.output[index]!));
    name = graph.owner?.output[index];
    graph = graph.parent;
  }
}
