/**
 * One repository's folder in the Hugging Face cache, in the layout that huggingface_hub documents: content in `blobs/` by
 * digest, `snapshots/<commit>/` with links into it, `refs/<revision>` with the commit that a name stood for last, and locks
 * beside the repositories. `.tuckerd/<commit>.json` is ours: the listing of a commit, which never changes, so that a pinned
 * or offline start makes the same choice as the first one did, without a request.
 *
 * @module
 */
import { dirname, join, relative } from "node:path";
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import { COMMIT, ListedFile, type RepositoryFile } from "./repository.ts";

/** The cached part of one repository. */
export class RepositoryCache {
  readonly #root: string;
  readonly #locks: string;

  constructor(cacheFolder: string, repository: string) {
    const name = `models--${repository.replace("/", "--")}`;
    this.#root = join(cacheFolder, name);
    this.#locks = join(cacheFolder, ".locks", name);
  }

  /** Where the content with a digest is, or will be. */
  blobPath(digest: string): string {
    return join(this.#root, "blobs", digest);
  }

  /** The file that whoever downloads that content holds locked. */
  lockPath(digest: string): string {
    return join(this.#locks, `${digest}.lock`);
  }

  /** Where a file of a commit is, or will be. */
  snapshotPath(commit: string, path: string): string {
    return join(this.#root, "snapshots", commit, path);
  }

  /** Whether a file of a commit is there, whole. */
  async has(commit: string, { path, size }: RepositoryFile): Promise<boolean> {
    return await sizeOf(this.snapshotPath(commit, path)) === size;
  }

  /** Whether the content of a file is there, whole, under whatever commit it came. */
  async hasBlob(file: ListedFile): Promise<boolean> {
    return await sizeOf(this.blobPath(file.digest)) === file.size;
  }

  /** The commit that a branch or tag stood for last; undefined if it was never fetched. */
  async readRef(revision: string): Promise<string | undefined> {
    const commit = (await readText(join(this.#root, "refs", revision)))?.trim();
    return commit !== undefined && COMMIT.test(commit) ? commit : undefined;
  }

  /** Remembers the commit that a branch or tag stands for. */
  async writeRef(revision: string, commit: string): Promise<void> {
    await writeWhole(join(this.#root, "refs", revision), commit);
  }

  /** The remembered listing of a commit; undefined if there is none that can be read. */
  async readListing(commit: string): Promise<ListedFile[] | undefined> {
    const text = await readText(this.#listingPath(commit));
    if (text === undefined) return undefined;
    try {
      return z.array(ListedFile).parse(JSON.parse(text));
    } catch {
      return undefined; // it is a memory of what the hub says, and the hub can be asked again
    }
  }

  /** Remembers the listing of a commit. */
  async writeListing(commit: string, files: readonly ListedFile[]): Promise<void> {
    await writeWhole(this.#listingPath(commit), JSON.stringify(files));
  }

  /** The files of a commit that are on disk, for a cache that another program filled. */
  async present(commit: string): Promise<RepositoryFile[]> {
    const root = join(this.#root, "snapshots", commit);
    const files: RepositoryFile[] = [];
    const walk = async (folder: string): Promise<void> => {
      for await (const { name, isDirectory } of Deno.readDir(folder)) {
        const path = join(folder, name);
        if (isDirectory) await walk(path);
        else files.push({ path: relative(root, path).replaceAll("\\", "/"), size: (await Deno.stat(path)).size });
      }
    };
    await walk(root).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    return files.sort((a, b) => a.path < b.path ? -1 : 1);
  }

  /** Puts downloaded content in its place in a commit's snapshot. */
  async link(commit: string, { path, digest }: ListedFile): Promise<void> {
    const [blob, pointer] = [this.blobPath(digest), this.snapshotPath(commit, path)];
    await onDisk(pointer, async () => {
      await Deno.mkdir(dirname(pointer), { recursive: true });
      const temporary = `${pointer}.${crypto.randomUUID()}.part`;
      try {
        await Deno.symlink(relative(dirname(pointer), blob), temporary);
      } catch (error) {
        // Windows lets only some users make links; a copy is what huggingface_hub makes there.
        if (!(error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotSupported)) throw error;
        await Deno.copyFile(blob, temporary);
      }
      await Deno.rename(temporary, pointer);
    });
  }

  #listingPath(commit: string): string {
    return join(this.#root, ".tuckerd", `${commit}.json`);
  }
}

/**
 * Runs work that writes `path`.
 *
 * @throws TuckerdError `failed` where the disk refuses, saying what to do
 */
export async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TuckerdError) throw error;
    const full = /ENOSPC|EDQUOT|os error (28|122)\b/.test(String(error));
    throw new TuckerdError(
      "failed",
      `can't write ${path} (${(error as Error).message}); ` +
        (full ? "free space on that disk, or set " : "make it writable, or set ") +
        "HF_HOME (or HF_HUB_CACHE) to a folder on a disk with room",
      { cause: error },
    );
  }
}

/** Writes a small file whole or not at all. */
async function writeWhole(path: string, text: string): Promise<void> {
  await onDisk(path, async () => {
    await Deno.mkdir(dirname(path), { recursive: true });
    const temporary = `${path}.${crypto.randomUUID()}.part`;
    try {
      await Deno.writeTextFile(temporary, text);
      await Deno.rename(temporary, path);
    } catch (error) {
      await Deno.remove(temporary).catch(() => {/* it may never have been made */});
      throw error;
    }
  });
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** Bytes of a file, through links; undefined where there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory ||
    error instanceof Deno.errors.IsADirectory;
}
