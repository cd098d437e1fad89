/**
 * Compiled kernels. The cache is a Map from key to Promise; a compilation that fails is not remembered.
 *
 * @module
 */
import type { Kernel } from "../../kernels/mod.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";

/** A kernel compiled for one set of overrides. */
export interface Pipeline<P extends string = string> {
  /** Kernel name and overrides, such as `matmul[T=16]`; the GPU label. */
  readonly key: string;
  readonly kernel: Kernel<P>;
  readonly overrides: Readonly<Record<string, number>>;
  readonly raw: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Name and every specialisation of a kernel. */
export function pipelineKey(kernel: Pick<Kernel, "name">, overrides: Readonly<Record<string, number>>): string {
  const constants = Object.entries(overrides).map(([name, value]) => `${name}=${value}`).join(",");
  return constants === "" ? kernel.name : `${kernel.name}[${constants}]`;
}

/** Compiles each kernel once for each set of overrides. */
export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #pipelines = new Map<string, Promise<Pipeline<never>>>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * The pipeline of a kernel.
   *
   * @param overrides replaces some of the kernel's own
   * @throws TuckerdError `failed` with key, line and source if it doesn't compile
   */
  get<P extends string>(kernel: Kernel<P>, overrides: Readonly<Record<string, number>> = {}): Promise<Pipeline<P>> {
    const constants = { ...kernel.overrides, ...overrides };
    const key = pipelineKey(kernel, constants);
    const cached = this.#pipelines.get(key) as Promise<Pipeline<P>> | undefined;
    if (cached !== undefined) return cached;
    const compiled = compile(this.#device, kernel, constants);
    this.#pipelines.set(key, compiled as Promise<Pipeline<never>>);
    compiled.catch(() => this.#pipelines.delete(key));
    return compiled;
  }
}

async function compile<P extends string>(
  device: GPUDevice,
  kernel: Kernel<P>,
  overrides: Readonly<Record<string, number>>,
): Promise<Pipeline<P>> {
  const key = pipelineKey(kernel, overrides);
  const start = performance.now();
  device.pushErrorScope("internal");
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: key, code: kernel.source });
  // A compute shader sees the uniform parameters first, then the record's buffers in order: nothing is left to "auto",
  // which drops bindings that a specialisation doesn't use.
  const layout = device.createBindGroupLayout({
    label: key,
    entries: [
      { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" as const } },
      ...kernel.bindings.map(({ access }, index) => ({
        binding: index + 1,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: access === "read" ? "read-only-storage" as const : "storage" as const },
      })),
    ],
  });
  const pipeline = device.createComputePipelineAsync({
    label: key,
    layout: device.createPipelineLayout({ label: key, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: kernel.entryPoint, constants: { ...overrides } },
  }).then((raw) => ({ raw }), (error: unknown) => ({ error }));
  const scopes = Promise.all([device.popErrorScope(), device.popErrorScope()]);
  const [{ messages }, result, errors] = await Promise.all([module.getCompilationInfo(), pipeline, scopes]);
  const mistake = messages.find((message) => message.type === "error");
  if (mistake !== undefined) throw compileError(key, kernel.source, mistake);
  const error = errors.find((error) => error !== null) ?? ("error" in result ? result.error : undefined);
  if (error !== undefined) {
    const reason = error instanceof Error || error instanceof GPUError ? error.message : String(error);
    throw new TuckerdError("failed", `kernel ${key} can't be built: ${reason.trim()}`, {
      cause: error,
      fields: { kernel: key },
    });
  }
  if ("error" in result) throw result.error; // unreachable: handled above, narrows the type
  log(2, `GPU: compiled ${key} in ${(performance.now() - start).toFixed(1)} ms`);
  log(3, kernel.source);
  return { key, kernel, overrides, raw: result.raw, layout };
}

function compileError(key: string, source: string, message: GPUCompilationMessage): TuckerdError {
  const line = source.split("\n")[message.lineNum - 1] ?? "";
  return new TuckerdError(
    "failed",
    `kernel ${key} doesn't compile: line ${message.lineNum}, column ${message.linePos}: ` +
      `${message.message.trim().split("\n")[0]}\n  ${line.trim()}`,
    { fields: { kernel: key, line: message.lineNum, source: line.trim() } },
  );
}
