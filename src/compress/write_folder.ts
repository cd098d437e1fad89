/**
 * A compressed model as a folder of its own, in the Hugging Face layout: whole or not at all.
 *
 * @module
 */
import { basename, dirname, extname, join, resolve } from "node:path";
import { TuckerdError } from "../errors.ts";
import { saveModel } from "../onnx/save.ts";
import type { CompressionReport } from "./artifact.ts";
import type { Compressor, CompressRun } from "./compressor.ts";
import type { CacheKind } from "./graphs.ts";
import type { CompressionOptions } from "./options.ts";

/** How and where a folder is written. */
export interface WriteFolderOptions extends CompressRun {
  readonly out: string;
  /** `factored`: factors as initializers; `dense`: the reconstruction in the place of the weights. */
  readonly execution: "factored" | "dense";
  /** How a decoder's cache is kept; `compressed` needs factors. `full` by default. */
  readonly cache?: CacheKind;
}

/** Files beside the graph that belong to a model: configuration, tokenizer, vocabulary. */
const companions = new Set([".json", ".txt", ".model", ".jinja", ".md"]);

/**
 * Compresses and writes: the graph in `onnx/` under the name it had, the files beside it, and the report as `tuckerd.json`.
 *
 * @throws TuckerdError `invalid` where `out` holds something already or the layout can't run factored; `failed` where the disk
 * refuses, and then nothing is left behind
 */
export async function writeModelFolder(
  compressor: Compressor,
  options: CompressionOptions,
  { out, execution, cache = "full", ...run }: WriteFolderOptions,
): Promise<CompressionReport> {
  await refuseNonEmpty(out);
  if (options.layout === "reference" && execution === "factored") {
    throw new TuckerdError(
      "invalid",
      'layout "reference" cuts heads across the input and can\'t run factored; add --execution dense, or use layout "heads"',
    );
  }
  if (cache === "compressed") checkCache(compressor, execution);
  const started = performance.now();
  const decomposed = await compressor.decompose(options, run);
  const written = execution === "dense"
    ? await compressor.withReconstructions(decomposed)
    : await compressor.withFactors(decomposed, cache);
  const seconds = (performance.now() - started) / 1000;
  const report = compressor.report({ options, decomposed, execution, written, feeds: {}, seconds });
  if (cache === "compressed") refuseFullCache(compressor, report);

  const target = resolve(out);
  const temporary = `${target}.${crypto.randomUUID()}.part`;
  try {
    const { folder } = compressor;
    await Deno.mkdir(temporary, { recursive: true });
    await saveModel(written.model, join(temporary, "onnx", basename(folder.graphPath)));
    await copyCompanions(folder.path, temporary);
    await Deno.writeTextFile(join(temporary, "tuckerd.json"), `${JSON.stringify(report, null, 2)}\n`);
    await Deno.mkdir(dirname(target), { recursive: true });
    await Deno.rename(temporary, target);
  } catch (error) {
    await Deno.remove(temporary, { recursive: true }).catch(() => {/* it may never have been made */});
    if (error instanceof TuckerdError) throw error;
    throw new TuckerdError("failed", `can't write the model folder ${out}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return report;
}

/** Refuses early what can't have a compressed cache. */
function checkCache({ blocks }: Compressor, execution: "factored" | "dense"): void {
  if (execution === "dense") {
    throw new TuckerdError("invalid", "--cache compressed needs the factors; leave --execution dense out");
  }
  if (blocks.some((block) => block.cacheNumbersPerToken > 0)) return;
  throw new TuckerdError(
    "invalid",
    "--cache compressed: the graph has no key-value cache; export the decoder with one (past_key_values), or leave the option out",
  );
}

/** A cache that came out as large as before isn't what was asked for. */
function refuseFullCache({ blocks }: Compressor, { totals: { kvBytesPerToken } }: CompressionReport): void {
  if (kvBytesPerToken.after < kvBytesPerToken.before) return;
  const reasons = new Set(blocks.flatMap((block) => block.valueOutputExpandedBecause ?? []));
  throw new TuckerdError(
    "invalid",
    `--cache compressed: at these ranks and in this mode the cache takes ${kvBytesPerToken.after} bytes a token, ` +
      `not fewer than before (${kvBytesPerToken.before})${reasons.size === 0 ? "" : `: ${[...reasons].join("; ")}`}; ` +
      "lower the head rank r2, choose a Tucker mode, or leave the option out",
    { fields: { kvBytesPerToken } },
  );
}

/** Renaming replaces an empty folder; anything else is somebody's. */
async function refuseNonEmpty(out: string): Promise<void> {
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

async function copyCompanions(from: string, to: string): Promise<void> {
  for await (const entry of Deno.readDir(from)) {
    if (entry.isFile && companions.has(extname(entry.name)) && entry.name !== "README.md") {
      await Deno.copyFile(join(from, entry.name), join(to, entry.name));
    }
  }
}
