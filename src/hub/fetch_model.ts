/**
 * A model of the Hugging Face hub, brought to disk: name → commit → listing → choice → download.
 *
 * @module
 */
import type { HubModel } from "../config/hub_model.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { RepositoryCache } from "./cache.ts";
import { downloadBlob } from "./download.ts";
import { spelled } from "./faults.ts";
import { createHubFetch, type HubConnection } from "./http.ts";
import { dataPath, firstCallOf, neededWith, possibleData } from "./needed.ts";
import { COMMIT, commitOf, filesAt, type ListedFile, type RepositoryFile, type RepositoryQuery } from "./repository.ts";
import type { HubSettings } from "./settings.ts";
import { chooseVariant, variantsOf } from "./variants.ts";

/** How a model is fetched. */
export interface FetchOptions {
  readonly settings: HubSettings;
  /** The locations of external data that an ONNX file names, relative to its folder. */
  readonly externalData: (graphPath: string) => Promise<readonly string[]>;
  /** Told the share of the bytes to fetch that are there, from 0 to 1, at each percent; not called where all is cached. */
  readonly onProgress?: ((share: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** As in `HubConnection`. */
  readonly pause?: HubConnection["pause"];
}

/** A model on disk. */
export interface FetchedModel {
  /** Its graph; the first of several. */
  readonly graphPath: string;
  /** Its ONNX files, in the snapshot of its commit; configuration and tokenizer are in their folder or the one above. */
  readonly graphPaths: readonly string[];
  /** `owner/name`. */
  readonly id: string;
  /** The commit that it is of. */
  readonly commit: string;
}

/**
 * Fetches what a model needs and isn't cached: its graphs, their external data, configuration and tokenizer.
 *
 * A commit is asked for only where the revision isn't one, and its listing only once: a pinned model that is cached makes no
 * request. Offline, a branch or tag is what it was when it was fetched last.
 *
 * @throws TuckerdError `not-found`, `unauthorized`, `forbidden`, `unsupported` (see `chooseVariant`), `failed` (network,
 * disk, damaged content), `cancelled` by the signal
 */
export async function fetchModel(model: HubModel, options: FetchOptions): Promise<FetchedModel> {
  const { settings, externalData } = options;
  const cache = new RepositoryCache(settings.cacheFolder, model.repository);
  const { signal, pause } = options;
  const connection: HubConnection = { model, settings, signal, pause };
  const query: RepositoryQuery = { connection, fetch: createHubFetch(connection) };

  const commit = await resolveRevision(cache, query);
  const files = await list(commit, cache, query);
  const graphs = chooseVariant(files, model);
  log(1, `hub: chose ${graphs.join(", ")} among ${variantsOf(files).join(", ")}`);

  const read = [...new Set(graphs.flatMap((graph) => [graph, ...firstCallOf(graph, files)]))];
  const needed = files.filter((file) => read.some((graph) => neededWith(graph, files).includes(file)));
  await bring(needed, { ...options, commit, cache, query });
  const graphPaths = graphs.map((graph) => cache.snapshotPath(commit, graph));
  for (const graph of read) {
    const possible = possibleData(graph, files, needed);
    if (possible.length === 0) continue;
    const locations = await externalData(cache.snapshotPath(commit, graph));
    const named = new Set(locations.map((location) => dataPath(graph, location)));
    await bring(possible.filter(({ path }) => named.has(path)), { ...options, commit, cache, query });
  }
  // Last, so that a branch never stands for a snapshot that isn't whole.
  if (!settings.offline && !COMMIT.test(model.revision)) await cache.writeRef(model.revision, commit);
  const pinned = spelled({ ...model, revision: commit, ...(graphs.length === 1 ? { file: graphs[0]! } : {}) });
  log(0, `model ${pinned}`);
  return { graphPath: graphPaths[0]!, graphPaths, id: model.repository, commit };
}

async function resolveRevision(cache: RepositoryCache, query: RepositoryQuery): Promise<string> {
  const { model, settings } = query.connection;
  if (COMMIT.test(model.revision)) return model.revision;
  if (!settings.offline) return await commitOf(query);
  const commit = await cache.readRef(model.revision);
  if (commit !== undefined) return commit;
  throw new TuckerdError(
    "not-found",
    `HF_HUB_OFFLINE is set, and ${spelled(model)} isn't in the cache ${settings.cacheFolder}: ` +
      "unset it, or run once with a network and the same HF_HOME",
  );
}

async function list(commit: string, cache: RepositoryCache, query: RepositoryQuery): Promise<RepositoryFile[]> {
  const known = await cache.readListing(commit);
  if (known !== undefined) return known;
  if (query.connection.settings.offline) return await cache.present(commit);
  const files = await filesAt(commit, query);
  await cache.writeListing(commit, files);
  return files;
}

interface Bringing extends FetchOptions {
  readonly commit: string;
  readonly cache: RepositoryCache;
  readonly query: RepositoryQuery;
}

/** Downloads and links those of the files that aren't there. */
async function bring(
  files: readonly RepositoryFile[],
  { commit, cache, query, settings, onProgress = () => {} }: Bringing,
): Promise<void> {
  const missing: RepositoryFile[] = [];
  for (const file of files) if (!await cache.has(commit, file)) missing.push(file);
  if (missing.length === 0) return;
  missing.sort((a, b) => a.size - b.size); // what fails on a small file fails before gigabytes came
  const { model } = query.connection;
  const whole = spelled({ repository: model.repository, revision: commit });
  if (settings.offline) {
    const names = missing.map(({ path }) => path).join(", ");
    throw new TuckerdError(
      "not-found",
      `HF_HUB_OFFLINE is set, and the cache ${settings.cacheFolder} lacks ${names} of ${whole}: ` +
        "unset it, or run once with a network and the same HF_HOME",
    );
  }
  const total = missing.reduce((sum, { size }) => sum + size, 0);
  const [count, size] = [missing.length, (total / 1e6).toFixed(1)];
  log(0, `fetching ${count} ${count === 1 ? "file" : "files"} of ${whole}, ${size} MB, to ${settings.cacheFolder}`);
  let [before, percent] = [0, -1];
  const onBytes = (bytes: number): void => {
    const now = total === 0 ? 100 : Math.floor(100 * (before + bytes) / total);
    if (now !== percent) onProgress((percent = now) / 100);
  };
  for (const file of missing) {
    const complete = withDigest(file);
    if (!await cache.hasBlob(complete)) {
      await downloadBlob({ ...query, file: complete, commit, cache, onBytes });
    }
    await cache.link(commit, complete);
    before += file.size;
    onBytes(0);
  }
}

/** Only `present` lists files without a digest, and those are there. */
function withDigest(file: RepositoryFile): ListedFile {
  const { digest } = file;
  if (digest === undefined) throw new TypeError(`${file.path} is listed without a digest`);
  return { ...file, digest };
}
