/**
 * The store of decomposed layers: a folder of factor files named by what they depend on (`taskKey`). With no folder given,
 * a temporary one that goes with the process.
 *
 * @module
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { kill } from "node:process";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { release } from "../release.ts";
import { decodeFactorFile, type FactorFile } from "./factor_file.ts";

/** Factor files by key. */
export class FactorStore implements AsyncDisposable {
  readonly #folder: string;
  readonly #temporary: boolean;
  readonly #scratch: string[] = [];

  private constructor(folder: string, temporary: boolean) {
    this.#folder = folder;
    this.#temporary = temporary;
  }

  /**
   * Opens a store.
   *
   * @param folder where it lives; undefined for one that is removed with this object
   */
  static async open(folder: string | undefined): Promise<FactorStore> {
    if (folder !== undefined) {
      await removeAbandoned(join(folder, "factors", "scratch"));
      return new FactorStore(join(folder, "factors"), false);
    }
    return new FactorStore(await Deno.makeTempDir({ prefix: "tuckerd-" }), true);
  }

  /** The file that a key names, whether it exists or not. Two levels, so that no folder grows long. */
  path(key: string): string {
    return join(this.#folder, key.slice(0, 2), `${key}.safetensors`);
  }

  /** Which of the keys have a file. */
  async has(key: string): Promise<boolean> {
    try {
      return (await Deno.stat(this.path(key))).isFile;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw TuckerdError.from(error);
    }
  }

  /** Reads a key's file; undefined where there is none. A damaged file is removed, since it can be computed again. */
  async read(key: string): Promise<FactorFile | undefined> {
    const path = this.path(key);
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = await Deno.readFile(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
      throw new TuckerdError("failed", `can't read ${path}: ${(error as Error).message}`, { cause: error });
    }
    try {
      return decodeFactorFile(bytes, path);
    } catch (error) {
      log(0, `${(error as Error).message}; computing it again`);
      await Deno.remove(path);
      return undefined;
    } finally {
      release(bytes);
    }
  }

  /** A new folder for files that last as long as this object. */
  async scratchFolder(): Promise<string> {
    const folder = join(this.#folder, "scratch", `${owner(Deno.pid)}${crypto.randomUUID()}`);
    this.#scratch.push(folder);
    try {
      await Deno.mkdir(folder, { recursive: true });
    } catch (error) {
      throw new TuckerdError("failed", `can't make the folder ${folder}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    return folder;
  }

  /** Removes scratch folders, and a temporary store as a whole. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const folder of this.#scratch) await Deno.remove(folder, { recursive: true });
    if (this.#temporary) await Deno.remove(this.#folder, { recursive: true });
  }
}

/** Start of a scratch folder's name: the process that it lasts as long as. Machines and containers may share a cache folder. */
function owner(pid: number): string {
  return `${hostname()}.${pid}.`;
}

/** Removes the scratch folders of this machine's processes that ended without doing so: those that were killed. */
async function removeAbandoned(scratch: string): Promise<void> {
  try {
    for await (const { name } of Deno.readDir(scratch)) {
      const pid = Number(name.slice(hostname().length + 1).split(".")[0]);
      if (!Number.isInteger(pid) || !name.startsWith(owner(pid)) || isRunning(pid)) continue;
      log(1, `removing ${name}, which a process that was killed left behind`);
      await Deno.remove(join(scratch, name), { recursive: true });
    }
  } catch (error) {
    // Another server may be cleaning too; a folder that stays costs only space.
    if (!(error instanceof Deno.errors.NotFound)) log(1, `can't clean ${scratch}: ${(error as Error).message}`);
  }
}

function isRunning(pid: number): boolean {
  try {
    kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ESRCH"; // EPERM: it runs, as another user
  }
}
