/**
 * Domain errors: a closed set, so that the command line (exit status) and the HTTP routes (status code) map each kind
 * once. A wrong type or shape inside the program is a `TypeError` or `RangeError`; these classes are for what a caller
 * catches.
 *
 * @module
 */

/** What went wrong, by who can mend it; `routes/errors.ts` and `main.ts` map every kind. */
export type ErrorKind =
  /** Well-formed input that breaks a rule (rank above its dimension, empty question). HTTP 422, exit 2. */
  | "invalid"
  /** Something named by the caller isn't there (model folder, job, generation). HTTP 404, exit 1. */
  | "not-found"
  /** A file that can't be understood (truncated .onnx, tokenizer.json that isn't JSON). HTTP 422, exit 1. */
  | "bad-model"
  /** The model is understood but nothing in it can be compressed. HTTP 422, exit 1. */
  | "unsupported"
  /** Another change is under way. HTTP 409. */
  | "conflict"
  /** The caller isn't allowed to. HTTP 401 or 403. */
  | "unauthorized"
  | "forbidden"
  /** The queue is full; try again after `retryAfterSeconds`. HTTP 429. */
  | "overloaded"
  /** Not ready yet. HTTP 503. */
  | "unavailable"
  /** Cancelled by its owner. HTTP 499-like; jobs end as "cancelled". */
  | "cancelled"
  /** GPU, disk, child process or runtime failed. HTTP 500, exit 1. */
  | "failed";

/** An error that a user is meant to read: what was tried, the rule, the actual value, what to do. */
export class TuckerdError extends Error {
  override readonly name = "TuckerdError";
  readonly kind: ErrorKind;
  /** Machine-readable details, safe to show: never user text, never secrets. */
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(
    kind: ErrorKind,
    message: string,
    options: { cause?: unknown; fields?: Record<string, unknown> } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.kind = kind;
    this.fields = options.fields ?? {};
  }

  /** A plain object that crosses process and worker boundaries; `fromJSON` restores it. */
  toJSON(): { kind: ErrorKind; message: string; fields: Readonly<Record<string, unknown>> } {
    return { kind: this.kind, message: this.message, fields: this.fields };
  }

  /** Restores an error sent by `toJSON`. */
  static fromJSON(json: { kind: ErrorKind; message: string; fields?: Record<string, unknown> }): TuckerdError {
    return new TuckerdError(json.kind, json.message, { fields: json.fields ?? {} });
  }

  /** Wraps anything thrown; a `TuckerdError` passes through unchanged. */
  static from(error: unknown, kind: ErrorKind = "failed"): TuckerdError {
    if (error instanceof TuckerdError) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new TuckerdError(kind, message, { cause: error });
  }
}
