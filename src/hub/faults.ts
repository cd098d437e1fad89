/**
 * What the hub's refusals mean, and what the user can do about each.
 *
 * @module
 */
import type { HubModel } from "../config/hub_model.ts";
import { type ErrorKind, TuckerdError } from "../errors.ts";
import type { HubSettings } from "./settings.ts";

/** Whom the hub was asked about, and by whom. */
export interface HubRequestContext {
  readonly model: HubModel;
  readonly settings: HubSettings;
}

/** A model as the user writes it, at a revision or commit. */
export function spelled({ repository, revision, file, precision }: HubModel): string {
  const choice = file ?? precision;
  return `hf:${repository}@${revision}${choice === undefined ? "" : `:${choice}`}`;
}

/**
 * The error for an answer that is no success, by its status and the hub's `X-Error-Code`. The body is left alone: it may be
 * a proxy's page.
 */
export function refusal(response: Response, { model, settings }: HubRequestContext): TuckerdError {
  const { endpoint, token } = settings;
  const { status } = response;
  const code = response.headers.get("x-error-code") ?? "";
  const name = `hf:${model.repository}`;
  const fields = { status, code };
  const fault = (kind: ErrorKind, message: string) => new TuckerdError(kind, message, { fields });
  const asked = token === undefined ? "without a token" : `with the token of ${token.source}`;
  const page = `${endpoint}/${model.repository}`;
  if (code === "GatedRepo") {
    return fault(
      status === 401 ? "unauthorized" : "forbidden",
      `${name} is gated (HTTP ${status}, asked ${asked}): accept its conditions on ${page}, ` +
        "then set HF_TOKEN to a token of the account that did",
    );
  }
  if (code === "RevisionNotFound") {
    return fault("not-found", `${name} has no revision "${model.revision}": see its branches and tags on ${page}/tree`);
  }
  if (code === "EntryNotFound") {
    return fault("not-found", `${spelled(model)}: the hub lists a file that it doesn't have (${pathOf(response)})`);
  }
  if (status === 401 && token !== undefined) {
    return fault(
      "unauthorized",
      `the hub refuses the token of ${token.source} (HTTP 401): make a new one on ${endpoint}/settings/tokens, ` +
        `or remove it if ${name} is public`,
    );
  }
  // Without a token, the hub answers 401 for what doesn't exist as for what is private.
  if (status === 401 || status === 404) {
    return fault(
      status === 401 ? "unauthorized" : "not-found",
      `${name} isn't on ${endpoint}, or is private (HTTP ${status}, asked ${asked}): check the spelling, ` +
        "or set HF_TOKEN to a token that may read it",
    );
  }
  if (status === 403) {
    return fault(
      "forbidden",
      `reading ${name} isn't allowed (HTTP 403, asked ${asked}): ` +
        `set HF_TOKEN to a token with read access to it, from ${endpoint}/settings/tokens`,
    );
  }
  return fault("failed", `the hub ${endpoint} can't answer for ${name}: HTTP ${status} on ${pathOf(response)}`);
}

/** The error for a hub that can't be reached. */
export function unreachable(error: unknown, { model, settings: { endpoint } }: HubRequestContext): TuckerdError {
  return new TuckerdError(
    "failed",
    `can't reach the hub ${endpoint} for hf:${model.repository}: ${TuckerdError.from(error).message}; ` +
      "check the network (HTTPS_PROXY, HF_ENDPOINT), or, if the model is cached, set HF_HUB_OFFLINE=1",
    { cause: error },
  );
}

/** The path of a request: never its query, which may be signed. */
function pathOf(response: Response): string {
  return URL.canParse(response.url) ? new URL(response.url).pathname : "an unknown address";
}
