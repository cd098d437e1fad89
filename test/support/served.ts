/**
 * A model served in the test's own process.
 *
 * @module
 */
import type { CompressionRequest } from "../../src/compress/options.ts";
import { ModelServer } from "../../src/serve/server.ts";

/** Serves a model folder, as it is unless a compression is given; resolves once it answers. */
export async function serve(model: string, compression: CompressionRequest = { mode: "none" }): Promise<ModelServer> {
  const server = new ModelServer({
    model,
    compression,
    device: "cpu",
    inference: "cpu",
    cacheFolder: undefined,
    queue: 64,
    generations: 8,
  }, "test");
  await server.ready;
  return server;
}
