/**
 * Singular values of a model's layers and feed-forward matrices, from the store or the child process.
 *
 * @module
 */
import type { SpectrumSource } from "./choose.ts";
import type { SingularValuesTask, SpectrumTask } from "./layer_task.ts";
import { fromSingularValuesFile } from "./matrix_file.ts";
import type { CompressionOptions } from "./options.ts";
import { fromSpectrumFile } from "./spectrum_file.ts";
import type { TaskRunner } from "./task_runner.ts";

/** Takes them from what a runner runs or finds in its store. `matrices` of the options: those that are decomposed alone. */
export function spectrumSource(
  runner: TaskRunner,
  { layout, balance, matrices: subset }: Pick<CompressionOptions, "layout" | "balance" | "matrices">,
  signal?: AbortSignal,
): SpectrumSource {
  return {
    layers: (layers, allModes) =>
      runner.run(
        layers.map((layer): SpectrumTask => ({
          task: "spectrum",
          layer,
          layout,
          balance,
          allModes,
          ...(subset === undefined || !allModes ? {} : { matrices: subset }),
        })),
        { decode: (_task, file, where) => fromSpectrumFile(file, where), signal },
      ),
    matrices: (matrices) =>
      runner.run(
        matrices.map(({ layer, index, matrix }): SingularValuesTask => ({
          task: "singular-values",
          layer,
          index,
          matrix,
        })),
        { decode: (_task, file, where) => fromSingularValuesFile(file, where), signal },
      ),
  };
}
