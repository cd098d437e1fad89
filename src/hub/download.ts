/**
 * One file of the hub, from the first byte that is missing to its place among the cache's blobs.
 *
 * The package's own download writes without resuming, locking or checking, so the bytes are fetched here. What is under way
 * lies in `<digest>.incomplete`, and `<digest>.lock` is held meanwhile: huggingface_hub's names, so that the two go on with
 * each other's parts.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { onDisk, type RepositoryCache, sizeOf } from "./cache.ts";
import { spelled } from "./faults.ts";
import { ATTEMPTS, backoff, type HubConnection, SILENCE_MS, waitBetween } from "./http.ts";
import type { ListedFile } from "./repository.ts";

/** From where, to where, and who is told. */
export interface Download {
  readonly file: ListedFile;
  readonly commit: string;
  readonly cache: RepositoryCache;
  readonly connection: HubConnection;
  readonly fetch: typeof fetch;
  /** Told how many bytes of the file are there. */
  readonly onBytes: (bytes: number) => void;
}

/** How often a process looks whether another one has finished a file. */
const LOCK_POLL_MS = 200;

/**
 * Downloads the content of a file into the cache, unless it is there or another process brings it.
 *
 * @throws TuckerdError what the hub refuses; `failed` where the connection keeps breaking, the disk refuses, or the content
 * isn't what the hub's digest says
 */
export async function downloadBlob(download: Download): Promise<void> {
  const { file, cache } = download;
  const blob = cache.blobPath(file.digest);
  using _lock = await acquire(download);
  if (await cache.hasBlob(file)) return;
  const partial = `${blob}.incomplete`;
  await onDisk(partial, () => Deno.mkdir(dirname(partial), { recursive: true }));
  const resumed = (await sizeOf(partial) ?? 0) > 0;
  await complete(partial, download);
  let digest = await digestOf(partial, file);
  if (resumed && digest !== file.digest) {
    log(1, `hub: the part of ${file.path} that was there isn't of this file; fetching it whole`);
    await Deno.remove(partial);
    await complete(partial, download);
    digest = await digestOf(partial, file);
  }
  if (digest !== file.digest) {
    await Deno.remove(partial);
    throw new TuckerdError(
      "failed",
      `${file.path} of ${spelled(download.connection.model)} came damaged: its hash is ${digest}, ` +
        `but the hub lists ${file.digest}; it was removed: try again, and check HF_ENDPOINT and proxies between`,
    );
  }
  await onDisk(blob, () => Deno.rename(partial, blob));
}

/** An exclusive lock between processes; it goes with the process that holds it. */
async function acquire({ file, cache, connection }: Download): Promise<Deno.FsFile> {
  const path = cache.lockPath(file.digest);
  await onDisk(path, () => Deno.mkdir(dirname(path), { recursive: true }));
  const lock = await onDisk(path, () => Deno.open(path, { create: true, write: true }));
  try {
    for (let waits = 0; !await onDisk(path, () => lock.tryLock(true)); waits++) {
      if (waits === 0) log(0, `another process is fetching ${file.path}; waiting for it`);
      await waitBetween(LOCK_POLL_MS, connection);
    }
    return lock;
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** The transfer stopped before its end, or began elsewhere than it should. */
class Interruption extends Error {}

/** Fetches what is missing of a partial file, going on after interruptions. */
async function complete(partial: string, download: Download): Promise<void> {
  const { file, connection } = download;
  for (let attempt = 1;; attempt++) {
    using output = await onDisk(partial, () => Deno.open(partial, { create: true, read: true, write: true }));
    try {
      return await append(output, download);
    } catch (error) {
      if (!(error instanceof Interruption)) throw error;
      if (attempt === ATTEMPTS) {
        throw new TuckerdError(
          "failed",
          `the transfer of ${file.path} of ${
            spelled(connection.model)
          } broke off ${ATTEMPTS} times: ${error.message}; ` +
            "what came is kept, and the next start goes on from there",
          { cause: error },
        );
      }
      log(1, `hub: ${file.path}: ${error.message}; going on from there`);
      await waitBetween(backoff(attempt), connection);
    }
  }
}

async function append(output: Deno.FsFile, download: Download): Promise<void> {
  const { file, commit, connection: { model, settings, signal }, fetch, onBytes } = download;
  let at = (await output.stat()).size;
  if (at > file.size) at = await restart(output);
  onBytes(at);
  if (at === file.size) return;
  const silence = new Silence();
  try {
    const path = file.path.split("/").map(encodeURIComponent).join("/");
    const response = await fetch(`${settings.endpoint}/${model.repository}/resolve/${commit}/${path}`, {
      // An encoded body has other lengths than the file, and can't be resumed.
      headers: { "accept-encoding": "identity", ...(at > 0 ? { range: `bytes=${at}-` } : {}) },
      signal: silence.signal,
    });
    if (!continues(response, at, file.size)) at = await restart(output);
    if (response.body === null || response.status === 416) {
      await response.body?.cancel();
      throw new Interruption(`no content at byte ${at}`);
    }
    await output.seek(at, Deno.SeekMode.Start);
    for await (const chunk of arriving(response.body, silence, signal)) {
      if (at + chunk.length > file.size) {
        throw new Interruption(`more came than the ${file.size} bytes that are listed`);
      }
      await onDisk(download.cache.blobPath(file.digest), () => writeAll(output, chunk));
      at += chunk.length;
      onBytes(at);
    }
  } finally {
    silence.stop();
  }
  if (at < file.size) throw new Interruption(`it ended at byte ${at} of ${file.size}`);
  await output.sync();
}

/** Whether a response begins at byte `at` of the file; one that begins at its start may be a 200. */
function continues(response: Response, at: number, size: number): boolean {
  if (response.status !== 206) return at === 0;
  const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "") ?? [];
  return Number(first) === at && (total === "*" || Number(total) === size);
}

async function restart(output: Deno.FsFile): Promise<0> {
  await output.truncate(0);
  return 0;
}

/** Chunks of a body; a connection that breaks or falls silent becomes an `Interruption`. */
async function* arriving(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  silence: Silence,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  try {
    for (;;) {
      silence.restart();
      const { value, done } = await reader.read().catch((error) => {
        signal?.throwIfAborted();
        throw new Interruption((error as Error).message, { cause: error });
      });
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {/* a broken stream is at its end */});
  }
}

/** Aborts its signal where nothing restarts it in time. */
class Silence {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  restart(): void {
    this.stop();
    this.#timer = setTimeout(
      () => this.#controller.abort(new Error(`nothing came for ${SILENCE_MS / 1000} s`)),
      SILENCE_MS,
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

async function writeAll(output: Deno.FsFile, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += await output.write(chunk.subarray(at));
}

/** What is on disk, hashed as its digest was: SHA-256 of the content, or SHA-1 of a git blob (its length first). */
async function digestOf(path: string, { digest, size }: ListedFile): Promise<string> {
  const hash = createHash(digest.length === 64 ? "sha256" : "sha1");
  if (digest.length === 40) hash.update(`blob ${size}\0`);
  const buffer = new Uint8Array(1 << 20);
  using file = await Deno.open(path);
  for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) {
    hash.update(buffer.subarray(0, count));
  }
  return hash.digest("hex");
}
