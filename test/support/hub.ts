/**
 * A small Hugging Face hub on loopback: the routes of models, with its headers, redirects, pages and error codes. Large files
 * are answered by a redirect to a second server, as the hub's content network is.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** Content of files by path. */
export type Files = Readonly<Record<string, Uint8Array<ArrayBuffer>>>;

/** One request that the hub, or its content server, saw. */
export interface SeenRequest {
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
}

interface Repository {
  readonly branches: Map<string, string>;
  readonly commits: Map<string, Files>;
  /** The token that may read it; absent for a public one. */
  readonly token?: string;
  readonly gated?: boolean;
}

/** Files on one page of a listing: few, so that listings have pages. */
const PAGE = 3;

/** A hub that tests fill, break and look at. Dispose it to stop. */
export class LoopbackHub implements AsyncDisposable {
  /** Every request, in order. */
  readonly seen: SeenRequest[] = [];
  /** Asked before any other answer: a response that stands for it, or undefined. */
  intercept: (request: Request, path: string) => Response | undefined | Promise<Response | undefined> = () => undefined;
  readonly #repositories = new Map<string, Repository>();
  readonly #blobs = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #api = this.#listen((request, path) => this.#answer(request, path));
  readonly #content = this.#listen((request, path) => ranged(request, this.#blobs.get(path.slice(1))!));

  /** What HF_ENDPOINT is to be. */
  get endpoint(): string {
    return origin(this.#api);
  }

  /** The content server, another origin than the hub's. */
  get contentOrigin(): string {
    return origin(this.#content);
  }

  /** Adds a commit and moves a branch to it; gives its hash. */
  commit(repository: string, files: Files, options: { branch?: string; token?: string; gated?: boolean } = {}): string {
    const { branch = "main", ...access } = options;
    const known = this.#repositories.get(repository) ?? { branches: new Map(), commits: new Map(), ...access };
    this.#repositories.set(repository, known);
    const hash = sha1(`${repository} ${known.commits.size}`);
    known.commits.set(hash, files);
    known.branches.set(branch, hash);
    for (const bytes of Object.values(files)) this.#blobs.set(sha256(bytes), bytes);
    return hash;
  }

  /** Requests for content since the last call, by path in the repository; `range` appended where one was asked for. */
  takeContentRequests(): string[] {
    const paths = this.seen.filter(({ path }) => path.includes("/resolve/"))
      .map(({ path, range }) => path.replace(/^.*\/resolve\/[^/]+\//, "") + (range === null ? "" : ` ${range}`));
    this.seen.length = 0;
    return paths;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#api.shutdown(), this.#content.shutdown()]);
  }

  #listen(answer: (request: Request, path: string) => Response): Deno.HttpServer<Deno.NetAddr> {
    return Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
      const path = decodeURIComponent(new URL(request.url).pathname);
      const { headers } = request;
      this.seen.push({ path, range: headers.get("range"), authorization: headers.get("authorization") });
      return await this.intercept(request, path) ?? answer(request, path);
    });
  }

  #answer(request: Request, path: string): Response {
    const [, api, file] = [
      null,
      /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path),
      /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path),
    ];
    const [, name = ""] = api ?? file ?? [];
    const repository = this.#repositories.get(name);
    const asked = request.headers.get("authorization");
    if (repository === undefined) return refuse(asked === null ? 401 : 404, "RepoNotFound");
    if (repository.token !== undefined && asked !== `Bearer ${repository.token}`) {
      return repository.gated ? refuse(403, "GatedRepo") : refuse(401, "");
    }
    const revision = (api?.[3] ?? file?.[2])!;
    const commit = repository.branches.get(revision) ?? revision;
    const files = repository.commits.get(commit);
    if (files === undefined) return refuse(404, "RevisionNotFound");
    if (api?.[2] === "revision") return Response.json({ _id: "1", id: name, sha: commit, lastModified: 0 });
    if (api?.[2] === "tree") return tree(request, files);
    return this.#resolve(request, { commit, bytes: files[file![3]!], path: file![3]! });
  }

  #resolve(
    request: Request,
    { commit, bytes, path }: { commit: string; bytes: Uint8Array<ArrayBuffer> | undefined; path: string },
  ): Response {
    if (bytes === undefined) return refuse(404, "EntryNotFound");
    const headers = { "x-repo-commit": commit, etag: `"${gitBlob(bytes)}"` };
    if (!isLarge(path)) return ranged(request, bytes, headers);
    const digest = sha256(bytes);
    return new Response(null, {
      status: 302,
      headers: {
        ...headers,
        location: `${origin(this.#content)}/${digest}`,
        "x-linked-size": String(bytes.length),
        "x-linked-etag": `"${digest}"`,
      },
    });
  }
}

/** Stored as LFS, as the hub stores what .gitattributes says. */
function isLarge(path: string): boolean {
  return path.startsWith("onnx/");
}

function tree(request: Request, files: Files): Response {
  const url = new URL(request.url);
  const from = Number(url.searchParams.get("cursor") ?? 0);
  const entries = Object.entries(files).map(([path, bytes]) => ({
    type: "file",
    path,
    size: bytes.length,
    oid: isLarge(path) ? sha1(path) : gitBlob(bytes), // of a large file the pointer is hashed, not the content
    ...(isLarge(path) ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } } : {}),
  }));
  const all = [...new Set(Object.keys(files).filter((path) => path.includes("/")).map((path) => path.split("/")[0]))]
    .map((path): object => ({ type: "directory", path, size: 0, oid: sha1(path!) })).concat(entries);
  url.searchParams.set("cursor", String(from + PAGE));
  const more = from + PAGE < all.length;
  return Response.json(all.slice(from, from + PAGE), more ? { headers: { link: `<${url.href}>; rel="next"` } } : {});
}

function ranged(request: Request, bytes: Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}): Response {
  const [, first] = /^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "") ?? [];
  if (first === undefined) return new Response(bytes, { headers });
  const from = Number(first);
  if (from >= bytes.length) return new Response(null, { status: 416, headers });
  return new Response(bytes.slice(from), {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` },
  });
}

/** A body that promises `bytes` and breaks off after `count` of them. */
export function cutAfter(count: number, bytes: Uint8Array<ArrayBuffer>, init: ResponseInit = {}): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller): void {
      controller.enqueue(bytes.subarray(0, count));
      controller.close();
    },
  });
  return new Response(body, { ...init, headers: { ...init.headers, "content-length": String(bytes.length) } });
}

/** A refusal with the hub's error code. */
export function refuse(status: number, code: string): Response {
  return Response.json({ error: "…" }, { status, headers: code === "" ? {} : { "x-error-code": code } });
}

/** Hash of a git blob. */
export function gitBlob(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** SHA-256, as hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function sha1(text: string): string {
  return createHash("sha1").update(text).digest("hex");
}

function origin({ addr }: Deno.HttpServer<Deno.NetAddr>): string {
  return `http://${addr.hostname}:${addr.port}`;
}
