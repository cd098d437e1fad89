/**
 * What the child process is asked: tasks, each of which makes one file of the store, and what names that file.
 *
 * @module
 */
import { z } from "zod";
import { FEED_FORWARD_MATRICES } from "../attention/feed_forward/types.ts";
import { MATRICES } from "../attention/types.ts";
import { digestText } from "./model_folder.ts";

/** Raised whenever the same task may give other numbers, so that older cached factors are not used. */
export const ALGORITHM_VERSION = 4;

const layer = z.int().nonnegative();
const layout = z.enum(["heads", "reference"]);

/** One layer's attention, decomposed. */
export const LayerTask = z.object({
  task: z.literal("layer"),
  layer,
  mode: z.enum(["4d-tucker", "3d-tucker", "laser"]),
  layout,
  balance: z.boolean(),
  /** `hosvd`: the factors are sliced from the layer's full ones (`HosvdTask`); absent, they are HOOI's. */
  algorithm: z.literal("hosvd").optional(),
  /** Of the Tucker modes. */
  ranks: z.tuple([z.int(), z.int(), z.int()]).optional(),
  /** Of mode `laser`: only the matrices named are truncated. */
  matrixRanks: z.partialRecord(z.enum(MATRICES), z.int()).optional(),
  /** What mode `3d-tucker` decomposes; all four by default. */
  matrices: z.array(z.enum(MATRICES)).readonly().optional(),
});
/** One layer's attention, decomposed. */
export type LayerTask = z.infer<typeof LayerTask>;

/** One layer's full HOSVD, whose factors are sliced. It is made where a `LayerTask` needs it, and kept. */
export interface HosvdTask extends Pick<LayerTask, "layer" | "layout" | "balance"> {
  readonly task: "hosvd";
}

/** One matrix of a feed-forward network, truncated. */
export const MatrixTask = z.object({
  task: z.literal("matrix"),
  layer,
  /** Which network of the layer. */
  index: z.int().nonnegative(),
  matrix: z.enum(FEED_FORWARD_MATRICES),
  rank: z.int(),
});
/** One matrix of a feed-forward network, truncated. */
export type MatrixTask = z.infer<typeof MatrixTask>;

/** One layer's full HOSVD: singular values and the error of every choice of ranks. */
export const SpectrumTask = z.object({
  task: z.literal("spectrum"),
  layer,
  layout,
  balance: z.boolean(),
  /** Error tables of the modes 3d-tucker (of `matrices`) and laser too. */
  allModes: z.boolean(),
  /** What the table of mode `3d-tucker` is about; all four by default. */
  matrices: z.array(z.enum(MATRICES)).readonly().optional(),
});
/** One layer's full HOSVD. */
export type SpectrumTask = z.infer<typeof SpectrumTask>;

/** The singular values of one matrix of attention or of a feed-forward network. */
export const SingularValuesTask = z.object({
  task: z.literal("singular-values"),
  layer,
  /** Which network of the layer; 0 for a matrix of its attention. */
  index: z.int().nonnegative(),
  matrix: z.enum([...MATRICES, ...FEED_FORWARD_MATRICES]),
});
/** The singular values of one matrix. */
export type SingularValuesTask = z.infer<typeof SingularValuesTask>;

/** Anything that the child process can be asked. */
export const Task = z.discriminatedUnion("task", [LayerTask, MatrixTask, SpectrumTask, SingularValuesTask]);
/** Anything that the child process can be asked. */
export type Task = z.infer<typeof Task>;

/** Which backend a user allows. */
export const Device = z.enum(["auto", "webgpu", "cpu"]);
/** Which backend a user allows. */
export type Device = z.infer<typeof Device>;

/** Anything whose result is kept. */
export type KeptTask = Task | HosvdTask;

/** What a result depends on, as hex: content (of the model or of the weights), algorithm, backend asked for, and the task. */
export function taskKey(contentDigest: string, device: Device, task: KeptTask): string {
  return digestText(JSON.stringify([ALGORITHM_VERSION, contentDigest, device, Object.entries(task).sort()]));
}

/**
 * A command to the child: one line of JSON on its standard input. `files[i]` is where the i-th result goes, `full[i]` where the full
 * HOSVD lies that it is sliced from, or goes if there is none.
 */
export const ChildCommand = z.object({
  id: z.int(),
  device: Device,
  tasks: z.array(Task).readonly(),
  files: z.array(z.string()).readonly(),
  full: z.array(z.string().nullable()).readonly(),
});
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
