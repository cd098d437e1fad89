/**
 * What the variables of Hugging Face's own tools say, read as those tools read them ("Environment variables" of the
 * huggingface_hub documentation), so that models and tokens are shared with them.
 *
 * @module
 */
import { join } from "node:path";
import { UsageError } from "../config.ts";

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the hub is, who asks, and where its files are kept. */
export interface HubSettings {
  /** Address of the hub, without a slash at its end. */
  readonly endpoint: string;
  readonly token: HubToken | undefined;
  /** The folder that holds one folder for each repository. */
  readonly cacheFolder: string;
  /** No request at all: what isn't cached is missing. */
  readonly offline: boolean;
}

/** A user access token. */
export interface HubToken {
  readonly secret: string;
  /** Where it was found: the variable or the file, for error texts. */
  readonly source: string;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";

/**
 * Reads HF_ENDPOINT, HF_TOKEN (else HF_TOKEN_PATH, else the file `token` in HF_HOME), HF_HUB_CACHE, HF_HOME and
 * HF_HUB_OFFLINE.
 *
 * @throws UsageError where a variable breaks its rule
 */
export async function readHubSettings(env: Environment): Promise<HubSettings> {
  const home = expand(env.HF_HOME, env) ?? join(cacheHome(env), "huggingface");
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || DEFAULT_ENDPOINT),
    token: await readToken(env, home),
    cacheFolder: expand(env.HF_HUB_CACHE, env) ?? expand(env.HUGGINGFACE_HUB_CACHE, env) ?? join(home, "hub"),
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ""),
  };
}

function endpointOf(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "" || url.username !== "") {
    throw new UsageError({
      setting: "HF_ENDPOINT",
      rule: `must be the http or https address of a hub, such as ${DEFAULT_ENDPOINT}`,
      ...(url?.username ? {} : { value }),
    });
  }
  return url.href.replace(/\/+$/, "");
}

async function readToken(env: Environment, home: string): Promise<HubToken | undefined> {
  for (const source of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
    const secret = env[source]?.trim();
    if (secret) return checked({ secret, source });
  }
  const path = expand(env.HF_TOKEN_PATH, env) ?? join(home, "token");
  try {
    const secret = (await Deno.readTextFile(path)).trim();
    return secret === "" ? undefined : checked({ secret, source: path });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new UsageError({
      setting: `the token file ${path}`,
      rule: `can't be read (${(error as Error).message})`,
      hint: "set HF_TOKEN, or HF_TOKEN_PATH to a file that can be",
    });
  }
}

/** A line break or a letter outside ASCII can't be sent in a header. */
function checked(token: HubToken): HubToken {
  if (/^[\x21-\x7e]+$/.test(token.secret)) return token;
  throw new UsageError({
    setting: token.source,
    rule: "must hold one token: visible ASCII characters without spaces",
  });
}

function cacheHome(env: Environment): string {
  const given = expand(env.XDG_CACHE_HOME, env);
  if (given !== undefined) return given;
  const home = env.HOME || env.USERPROFILE;
  if (home) return join(home, ".cache");
  throw new UsageError({
    setting: "HF_HOME",
    rule: "must be set where neither XDG_CACHE_HOME nor HOME is",
    hint: "name a folder that may be written, such as /tmp/huggingface",
  });
}

/** A path with `~` put in words; undefined where nothing is set. */
function expand(path: string | undefined, env: Environment): string | undefined {
  if (path === undefined || path === "") return undefined;
  const home = env.HOME || env.USERPROFILE;
  return home && /^~(?=$|[/\\])/.test(path) ? join(home, path.slice(1)) : path;
}
