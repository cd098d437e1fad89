/**
 * One layer's decomposition as a task: what the child process is asked, and what names its result in the store.
 *
 * @module
 */
import { z } from "zod";
import { MATRICES } from "../attention/types.ts";
import { digestText } from "./model_folder.ts";

/** Raised whenever the same task may give other numbers, so that older cached factors are not used. */
export const ALGORITHM_VERSION = 1;

/** One layer's decomposition. */
export const LayerTask = z.object({
  layer: z.int().nonnegative(),
  mode: z.enum(["4d-tucker", "3d-tucker", "laser"]),
  layout: z.enum(["heads", "reference"]),
  balance: z.boolean(),
  ranks: z.tuple([z.int(), z.int(), z.int()]).optional(),
  rank: z.int().optional(),
  matrices: z.array(z.enum(MATRICES)).optional(),
});
/** One layer's decomposition. */
export type LayerTask = z.infer<typeof LayerTask>;

/** One layer's full HOSVD: singular values and the error of every choice of ranks. */
export const SpectrumTask = z.object({
  layer: z.int().nonnegative(),
  layout: z.enum(["heads", "reference"]),
  balance: z.boolean(),
  /** Error tables of the modes 3d-tucker and laser too. */
  allModes: z.boolean(),
});
/** One layer's full HOSVD. */
export type SpectrumTask = z.infer<typeof SpectrumTask>;

/** Which backend a user allows. */
export const Device = z.enum(["auto", "webgpu", "cpu"]);
/** Which backend a user allows. */
export type Device = z.infer<typeof Device>;

/** What a result depends on, as hex: model content, algorithm, backend asked for, and the task. */
export function taskKey(modelDigest: string, device: Device, task: LayerTask | SpectrumTask): string {
  return digestText(JSON.stringify([ALGORITHM_VERSION, modelDigest, device, Object.entries(task).sort()]));
}

/** A command to the child: one line of JSON on its standard input. `files[i]` is where the i-th result goes. */
export const ChildCommand = z.discriminatedUnion("command", [
  z.object({
    command: z.literal("decompose"),
    id: z.int(),
    device: Device,
    tasks: z.array(LayerTask),
    files: z.array(z.string()),
  }),
  z.object({
    command: z.literal("spectrum"),
    id: z.int(),
    device: Device,
    tasks: z.array(SpectrumTask),
    files: z.array(z.string()),
  }),
]);
/** A command to the child. */
export type ChildCommand = z.infer<typeof ChildCommand>;

/** An event from the child: one line of JSON on its standard output. */
export const ChildEvent = z.discriminatedUnion("event", [
  z.object({ event: z.literal("task"), id: z.int(), index: z.int() }),
  z.object({ event: z.literal("done"), id: z.int() }),
  z.object({
    event: z.literal("error"),
    id: z.int(),
    error: z.object({ kind: z.string(), message: z.string(), fields: z.record(z.string(), z.unknown()) }),
  }),
]);
/** An event from the child. */
export type ChildEvent = z.infer<typeof ChildEvent>;
