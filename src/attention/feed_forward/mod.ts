/**
 * Feed-forward networks in a graph: find them, take their matrices out, and write the graph again with those in low rank.
 *
 * @module
 */
export { extractFeedForward, findFeedForward } from "./find.ts";
export { type FeedForwardSource, rewriteFeedForward, type RewrittenFeedForward } from "./rewrite.ts";
export * from "./types.ts";
