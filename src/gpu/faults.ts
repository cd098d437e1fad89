/**
 * What went wrong on a device. WebGPU reports errors some time after the call that caused them; the first one is kept here
 * with a label and thrown at the next await. After it nothing that the device computes can be trusted, so it stays.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";

const FILTERS = ["validation", "out-of-memory", "internal"] as const;

/** The first error of a device, and the error scopes that haven't answered yet. */
export class GpuFaults {
  #first: TuckerdError | undefined;
  readonly #pending = new Set<Promise<void>>();

  /** Keeps an error, unless one is kept already. */
  report(error: TuckerdError): void {
    this.#first ??= error;
  }

  /** Runs a synchronous call in error scopes; whatever it causes is kept under the label. */
  scoped<T>(device: GPUDevice, label: string, call: () => T): T {
    for (const filter of FILTERS) device.pushErrorScope(filter);
    try {
      return call();
    } finally {
      for (const _ of FILTERS) {
        const answer = device.popErrorScope().then((error) => {
          if (error !== null) this.report(describe(error, label));
        }, (error) => this.report(lost(label, error)));
        this.#pending.add(answer);
        answer.finally(() => this.#pending.delete(answer));
      }
    }
  }

  /** Throws the kept error, if there is one. */
  check(): void {
    if (this.#first !== undefined) throw this.#first;
  }

  /** Waits for all error scopes so far, then checks. */
  async settle(): Promise<void> {
    await Promise.all(this.#pending);
    this.check();
  }
}

/** One clear error for a GPU error: what ran, of which kind, what the driver said, what to do. */
export function describe(error: GPUError, label: string): TuckerdError {
  const memory = error instanceof GPUOutOfMemoryError;
  const kind = memory ? "out of memory" : error instanceof GPUValidationError ? "validation error" : "internal error";
  const advice = memory ? "; free GPU memory, or decompose on the CPU (--device cpu)" : "";
  const message = error.message.trim().replace(/\.$/, "");
  return new TuckerdError("failed", `GPU ${kind} in ${label}: ${message}${advice}`, {
    cause: error,
    fields: { gpu: kind, label },
  });
}

/** The error of a device that is gone. */
export function lost(label: string, cause: unknown): TuckerdError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new TuckerdError("failed", `GPU device lost in ${label}: ${reason}`, {
    cause,
    fields: { gpu: "device lost", label },
  });
}
