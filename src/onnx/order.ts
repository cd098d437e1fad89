/**
 * The order of nodes. The specification asks for one in which every value is made before it is read, but ONNX Runtime takes
 * any, and some converters append their nodes at the end.
 *
 * @module
 */
import { readNames } from "./graph.ts";
import type { NodeProto } from "./node.ts";

/**
 * The nodes so that each stands behind those it reads, otherwise in the given order.
 *
 * @throws TypeError if nodes depend on each other in a circle.
 */
export function inOrder(nodes: readonly NodeProto[]): NodeProto[] {
  const producers = new Map<string, NodeProto>();
  for (const node of nodes) for (const output of node.output) if (output !== "") producers.set(output, node);
  const order: NodeProto[] = [];
  const state = new Map<NodeProto, "open" | "done">();
  for (const root of nodes) {
    // Depth first with a stack of its own: graphs are deeper than call stacks.
    const stack = [root];
    while (stack.length > 0) {
      const node = stack.at(-1)!;
      if (state.has(node)) {
        stack.pop();
        if (state.get(node) === "open") order.push(node);
        state.set(node, "done");
        continue;
      }
      state.set(node, "open");
      for (const name of readNames(node)) {
        const input = producers.get(name);
        if (input === undefined || state.get(input) === "done") continue;
        if (state.get(input) === "open") throw new TypeError(`the graph has a circle of nodes through ${node.name}`);
        stack.push(input);
      }
    }
  }
  return order;
}
