/**
 * What is checked before a compressed model is written: where it goes, and whether it can run so.
 *
 * @module
 */
import { dirname, resolve } from "node:path";
import { TuckerdError } from "../errors.ts";
import type { CompressionReport } from "./artifact.ts";
import type { CacheKind } from "./block_form.ts";
import type { Compressor } from "./compressor.ts";
import type { ModelGraphs } from "./model_graphs.ts";
import type { CompressionOptions } from "./options.ts";

/**
 * Refuses early what can't run so.
 *
 * @throws TuckerdError `invalid`
 */
export function checkExecution(
  { compressors }: ModelGraphs,
  { layout }: CompressionOptions,
  { execution, cache }: { readonly execution: "factored" | "dense"; readonly cache?: CacheKind },
): void {
  if (layout === "reference" && execution === "factored") {
    throw new TuckerdError(
      "invalid",
      'layout "reference" cuts heads across the input and can\'t run factored; add --execution dense, or use layout "heads"',
    );
  }
  if (cache === undefined || cache === "full") return;
  if (execution === "dense") {
    throw new TuckerdError("invalid", `--cache ${cache} needs the factors; leave --execution dense out`);
  }
  if (compressors.some(cachesIn)) return;
  throw new TuckerdError(
    "invalid",
    `--cache ${cache}: the graph has no key-value cache; export the decoder with one (past_key_values), or leave the option out`,
  );
}

/** Whether a graph has a key-value cache. */
export function cachesIn({ blocks }: Compressor): boolean {
  return blocks.some((block) => block.cacheNumbersPerToken > 0);
}

/**
 * A cache that came out as large as before isn't what was asked for.
 *
 * @throws TuckerdError `invalid`
 */
export function refuseFullCache(
  { blocks }: Compressor,
  { totals: { kvBytesPerToken } }: CompressionReport,
  cache: CacheKind,
): void {
  if (kvBytesPerToken.after < kvBytesPerToken.before) return;
  const reasons = new Set(
    blocks.flatMap((block) => [block.valueOutputExpandedBecause ?? [], block.noLatentKeysBecause ?? []].flat()),
  );
  throw new TuckerdError(
    "invalid",
    `--cache ${cache}: at these ranks and in this mode the cache takes ${kvBytesPerToken.after} bytes a token, ` +
      `not fewer than before (${kvBytesPerToken.before})${reasons.size === 0 ? "" : `: ${[...reasons].join("; ")}`}; ` +
      "lower the head rank r2, choose a Tucker mode, or leave the option out",
    { fields: { kvBytesPerToken } },
  );
}

/**
 * Renaming replaces an empty folder; anything else is somebody's.
 *
 * @throws TuckerdError `invalid`
 */
export async function refuseNonEmpty(out: string): Promise<void> {
  try {
    for await (const entry of Deno.readDir(out)) {
      throw new TuckerdError("invalid", `--out ${out} holds ${entry.name} already; name a new or an empty folder`);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (error instanceof Deno.errors.NotADirectory) {
      throw new TuckerdError("invalid", `--out ${out} is a file; name a new or an empty folder`, { cause: error });
    }
    throw error;
  }
}

/**
 * A graph of its own finds configuration and external data only where the original is.
 *
 * @throws TuckerdError `invalid` where it would be elsewhere, or something has its name
 */
export async function checkFile(out: string, { folder }: ModelGraphs): Promise<void> {
  const target = resolve(out);
  const home = dirname(folder.graphPath);
  if (folder.graphPaths.length > 1 || dirname(target) !== home) {
    const why = folder.graphPaths.length > 1
      ? `the model is kept in ${folder.graphPaths.length} graphs`
      : `an .onnx file must lie in the folder of the model's graph, ${home}, where its configuration and data are`;
    throw new TuckerdError("invalid", `--out ${out}: ${why}; name a folder to get one with everything in it`);
  }
  for (const path of [target, reportPath(target)]) {
    if (await Deno.lstat(path).then(() => true, () => false)) {
      throw new TuckerdError("invalid", `--out ${out}: ${path} is there already; choose another name`);
    }
  }
}

/** Where the report of a graph of its own goes. */
export function reportPath(graph: string): string {
  return graph.replace(/\.onnx$/, ".tuckerd.json");
}
