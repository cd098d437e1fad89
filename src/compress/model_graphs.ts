/**
 * A model that is kept in several graphs: a compressor for each that has attention, over one store, in which they share what they
 * have in common.
 *
 * @module
 */
import { basename } from "@std/path/mod.js";
import type { AttentionOperator } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { Compressor } from "./compressor.ts";
import { Decomposer } from "./decomposer.ts";
import type { Device } from "./layer_task.ts";
import type { ModelFolder } from "./model_folder.ts";
import type { FactorStore } from "./store.ts";

/** The graphs of one model. */
export interface ModelGraphs {
  readonly folder: ModelFolder;
  /** In the order of the folder's graphs. */
  readonly compressors: readonly Compressor[];
  /** Graphs without attention that can be compressed, such as embeddings: they go along as they are. */
  readonly others: readonly OtherGraph[];
}

/** A graph that stays as it is. */
export interface OtherGraph {
  readonly path: string;
  /** What was found in it, as the compressor says it. */
  readonly reason: string;
  readonly operators: readonly AttentionOperator[];
}

/** What became of an attention operator, and in which file where a model has several. */
export type GraphOperator = AttentionOperator & { readonly graph?: string };

/**
 * Opens all graphs of a model; `resources` ends their processes.
 *
 * @throws TuckerdError `bad-model` (a file can't be read), `unsupported` (none has attention that can be compressed)
 */
export async function openGraphs(
  folder: ModelFolder,
  { device, store }: { readonly device: Device; readonly store: FactorStore },
  resources: AsyncDisposableStack,
): Promise<ModelGraphs> {
  const sharesLayers = folder.graphPaths.length > 1;
  const compressors: Compressor[] = [];
  const others: OtherGraph[] = [];
  for (const graphPath of folder.graphPaths) {
    const decomposer = resources.use(new Decomposer(graphPath));
    try {
      compressors.push(await Compressor.open({ ...folder, graphPath }, { device, store, decomposer, sharesLayers }));
    } catch (error) {
      if (!(error instanceof TuckerdError) || error.kind !== "unsupported" || !sharesLayers) throw error;
      const operators = (error.fields["operators"] ?? []) as readonly AttentionOperator[];
      others.push({ path: graphPath, reason: error.message, operators });
    }
  }
  if (compressors.length === 0) {
    throw new TuckerdError("unsupported", others.map(({ reason }) => reason).join("; "), {
      fields: { operators: operatorsOf({ folder, compressors, others }) },
    });
  }
  return { folder, compressors, others };
}

/** Every softmax and attention operator of a model and what became of it, file by file. */
export function operatorsOf({ folder, compressors, others }: ModelGraphs): GraphOperator[] {
  const byPath = new Map([
    ...compressors.map(({ folder, operators }) => [folder.graphPath, operators] as const),
    ...others.map(({ path, operators }) => [path, operators] as const),
  ]);
  return folder.graphPaths.flatMap((path) =>
    (byPath.get(path) ?? []).map((operator) =>
      folder.graphPaths.length === 1 ? operator : { graph: basename(path), ...operator }
    )
  );
}
