/**
 * What a repository of the hub holds at a commit.
 *
 * @module
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { staysInside } from "../config/hub_model.ts";
import { TuckerdError } from "../errors.ts";
import type { HubConnection } from "./http.ts";

/** A full commit hash. */
export const COMMIT = /^[0-9a-f]{40}$/;

/** A file as the hub lists it. */
export const ListedFile = z.object({
  /** Relative to the repository. */
  path: z.string().refine(staysInside, "must stay inside the repository"),
  /** Bytes. */
  size: z.number().int().nonnegative(),
  /**
   * SHA-256 of the content (64 digits) where the file is stored as LFS, else the hash of its git blob (40). It names the
   * file in the cache.
   */
  digest: z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/, "must be a SHA-1 or a SHA-256"),
});
/** A file as the hub lists it. */
export type ListedFile = z.infer<typeof ListedFile>;
/** A file of a repository; without a digest where it was found on disk, unlisted. */
export type RepositoryFile = Pick<ListedFile, "path" | "size"> & Partial<Pick<ListedFile, "digest">>;

/** The package's view of one model, asked through a `fetch` that retries and explains. */
export interface RepositoryQuery {
  readonly connection: HubConnection;
  readonly fetch: typeof fetch;
}

/**
 * The commit that a branch, a tag or a short hash stands for now.
 *
 * @throws TuckerdError what the hub refuses; `failed` where its answer can't be understood
 */
export async function commitOf({ connection, fetch }: RepositoryQuery): Promise<string> {
  const { model: { repository, revision }, settings: { endpoint } } = connection;
  const info = await understood(
    connection,
    modelInfo({ name: repository, revision, additionalFields: ["sha"], hubUrl: endpoint, fetch }),
  );
  const commit = z.object({ sha: z.string().regex(COMMIT) }).safeParse(info);
  if (!commit.success) throw notUnderstood(connection, z.prettifyError(commit.error));
  return commit.data.sha;
}

/**
 * Every file at a commit.
 *
 * @throws TuckerdError as `commitOf`
 */
export async function filesAt(commit: string, { connection, fetch }: RepositoryQuery): Promise<ListedFile[]> {
  const { model: { repository }, settings: { endpoint } } = connection;
  const entries = await understood(
    connection,
    Array.fromAsync(listFiles({ repo: repository, revision: commit, recursive: true, hubUrl: endpoint, fetch })),
  );
  const files = entries.filter(({ type }) => type === "file")
    .map(({ path, size, oid, lfs }) => ({ path, size: lfs?.size ?? size, digest: lfs?.oid ?? oid }));
  const parsed = z.array(ListedFile).safeParse(files);
  if (!parsed.success) throw notUnderstood(connection, z.prettifyError(parsed.error));
  return parsed.data;
}

/** An answer that isn't the hub's (a proxy's page, say) fails in the package's own parsing. */
async function understood<T>(connection: HubConnection, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    connection.signal?.throwIfAborted();
    if (error instanceof TuckerdError) throw error;
    throw notUnderstood(connection, TuckerdError.from(error).message, error);
  }
}

function notUnderstood({ model, settings }: HubConnection, why: string, cause?: unknown): TuckerdError {
  return new TuckerdError(
    "failed",
    `${settings.endpoint} doesn't answer for hf:${model.repository} as a Hugging Face hub does (${why}); ` +
      "check HF_ENDPOINT, and whether a proxy stands between",
    { cause },
  );
}
