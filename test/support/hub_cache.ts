/**
 * Fetching from a loopback hub into a cache of the test's own.
 *
 * @module
 */
import { parseHubModel } from "../../src/config/hub_model.ts";
import { type FetchedModel, fetchModel, type FetchOptions } from "../../src/hub/fetch_model.ts";
import type { HubSettings } from "../../src/hub/settings.ts";
import { type Files, LoopbackHub } from "./hub.ts";

/** A hub and an empty cache. Dispose it to stop the one and remove the other. */
export class HubBench implements AsyncDisposable {
  readonly hub = new LoopbackHub();
  readonly cacheFolder = Deno.makeTempDirSync();
  /** Pauses that were asked for, in milliseconds; none of them is waited. */
  readonly pauses: number[] = [];
  /** Shares that were told. */
  readonly progress: number[] = [];

  /** Fetches a model by its name. */
  async fetch(
    name: string,
    settings: Partial<HubSettings> = {},
    options: Partial<FetchOptions> = {},
  ): Promise<FetchedModel> {
    return await fetchModel(parseHubModel(name)!, {
      settings: {
        endpoint: this.hub.endpoint,
        token: undefined,
        cacheFolder: this.cacheFolder,
        offline: false,
        ...settings,
      },
      externalData: () => Promise.resolve([]),
      onProgress: (share) => this.progress.push(share),
      pause: (milliseconds) => {
        this.pauses.push(milliseconds);
        return Promise.resolve();
      },
      ...options,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
    await Deno.remove(this.cacheFolder, { recursive: true });
  }
}

/** The files of a folder of test data, by path. */
export function filesOf(folder: URL): Files {
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  const walk = (at: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(new URL(at, folder))) {
      if (isDirectory) walk(`${at}${name}/`);
      else files[at + name] = Deno.readFileSync(new URL(at + name, folder));
    }
  };
  walk("./");
  return Object.fromEntries(
    Object.entries(files).map(([path, bytes]): [string, Files[string]] => [path.slice(2), bytes]).sort(),
  );
}

/** The model that these tests fetch. */
export const bertQa: Files = filesOf(new URL("../testdata/serving/bert-qa/", import.meta.url));

/** A text as bytes. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
