/**
 * Every setting of the program as one record: its name, its rule as a zod schema over the text that a user writes, and its
 * help. The parser and the `--help` texts are both made from this table. `--max-body` and `TUCKERD_MAX_BODY` are the same
 * setting.
 *
 * @module
 */
import { z } from "zod";
import { decimal, flag, integer, layers, listOf, oneOf, overrides, ranks, secret, text } from "./values.ts";
import { HUB_MODEL_RULE, isHubModel, parseHubModel } from "./hub_model.ts";

/** The tasks that `parseCommandLine` knows. */
export const TASKS = ["start", "compress", "spectrum", "eval"] as const;
/** One task of the command line. */
export type TaskName = (typeof TASKS)[number];

/** Compression modes that a user can ask for, by the authors' names. */
export const MODES = ["4d-tucker", "3d-tucker", "laser", "4d-tucker-laser", "auto", "none"] as const;

/** Attention matrices by name. */
export const ATTENTION_NAMES = ["query", "key", "value", "output"] as const;
/** What mode `laser` can truncate: matrices of attention and of feed-forward networks, and groups of them. */
export const LASER_NAMES = [...ATTENTION_NAMES, "fc_in", "fc_up", "fc_out", "attention", "ffn", "all"] as const;
/** A matrix or a group of matrices that mode `laser` can truncate. */
export type LaserName = (typeof LASER_NAMES)[number];

/** What an energy or a ratio holds for: every layer alone, or all of them together. */
export const BUDGETS = ["layer", "global"] as const;
/** What an energy or a ratio holds for. */
export type Budget = (typeof BUDGETS)[number];

/** How the factors of a Tucker decomposition are found. */
export const ALGORITHMS = ["hooi", "hosvd"] as const;
/** How the factors of a Tucker decomposition are found. */
export type Algorithm = (typeof ALGORITHMS)[number];

/** How one setting is written, checked and explained. */
export interface OptionSpec<S extends z.ZodType = z.ZodType> {
  /** What stands for the value in the help; absent for a flag. */
  readonly placeholder?: string;
  readonly schema: S;
  readonly help: string;
  /** The default in words, where there is one. */
  readonly defaultText?: string;
  /** Never shown, never taken from the command line: an environment variable only. */
  readonly secret?: true;
  readonly tasks: readonly TaskName[];
}

const all = TASKS;
const compressing: readonly TaskName[] = ["start", "compress", "eval"];

function option<S extends z.ZodType>(spec: OptionSpec<S>): OptionSpec<S> {
  return spec;
}

/** All settings by name, in the order in which the help lists them. */
export const OPTIONS = {
  model: option({
    placeholder: "M",
    schema: text.refine((model) => !isHubModel(model) || parseHubModel(model) !== undefined, HUB_MODEL_RULE),
    help:
      "Model folder in the Hugging Face layout (config.json, tokenizer.json, onnx/model.onnx, or an encoder and a decoder), an .onnx file, or " +
      "hf:owner/name[@revision][:file.onnx|:precision], which is fetched into the Hugging Face cache (HF_HOME, HF_TOKEN, HF_ENDPOINT " +
      "and HF_HUB_OFFLINE are honoured).",
    defaultText: "the embedded model",
    tasks: all,
  }),
  out: option({
    placeholder: "DIR",
    schema: text,
    help:
      "Folder to write the model to, new or empty: the graphs with the weights that they use, and the files beside them. " +
      "Or an .onnx file in the folder of the model's graph: the graph alone, which refers to the external data that is there.",
    tasks: ["compress"],
  }),
  dataset: option({
    placeholder: "NAME|FILE",
    schema: text,
    help: "Data set by name, or a file of question-answering examples.",
    tasks: ["eval"],
  }),
  ranks: option({
    placeholder: "R1,R2,R3",
    schema: ranks,
    help:
      "Ranks of the hidden, head and stack mode, the same in every layer. Give one of --ranks, --energy and --ratio; " +
      "without any, what the model's config.json recommends is taken, else --ratio 4.",
    tasks: compressing,
  }),
  energy: option({
    placeholder: "E",
    schema: decimal("must be above 0 and at most 1", (value) => value > 0 && value <= 1),
    help: "Share of each layer's squared norm to keep (1 - relative error squared); the ranks follow.",
    tasks: compressing,
  }),
  ratio: option({
    placeholder: "C",
    schema: decimal("must be a number of at least 1", (value) => value >= 1 && Number.isFinite(value)),
    help:
      "Compression ratio of the attention weights (of the chosen matrices, with --matrices and in --mode laser); the ranks with " +
      "the smallest error at that ratio follow.",
    tasks: compressing,
  }),
  layers: option({
    placeholder: "all|0,2-5",
    schema: layers,
    help: "Layers to compress (or to show); the others are left alone.",
    defaultText: "all",
    tasks: all,
  }),
  overrides: option({
    placeholder: "3=R1,R2,R3;0=skip",
    schema: overrides,
    help: "Single layers by number: ranks of their own, or skip to leave a layer as it is. Quote it for the shell.",
    tasks: compressing,
  }),
  mode: option({
    placeholder: MODES.join("|"),
    schema: oneOf(MODES),
    help: "Decomposition.",
    defaultText: "4d-tucker",
    tasks: compressing,
  }),
  budget: option({
    placeholder: BUDGETS.join("|"),
    schema: oneOf(BUDGETS),
    help:
      "What --energy and --ratio hold for: each layer, or all of them together, with the ranks where they help most.",
    defaultText: "layer",
    tasks: compressing,
  }),
  matrices: option({
    placeholder: ATTENTION_NAMES.join(","),
    schema: listOf(ATTENTION_NAMES),
    help: "Matrices that --mode 3d-tucker decomposes; the others stay as they are.",
    defaultText: "all four",
    tasks: compressing,
  }),
  "laser-matrices": option({
    placeholder: "NAME,…",
    schema: listOf(LASER_NAMES),
    help: `Matrices that the laser modes truncate: ${
      LASER_NAMES.join(", ")
    }. In a gated feed-forward network fc_in is the gate.`,
    defaultText: "attention for laser, ffn for 4d-tucker-laser",
    tasks: compressing,
  }),
  "laser-rate": option({
    placeholder: "RHO",
    schema: decimal("must be at least 0 and below 10", (value) => value >= 0 && value < 10),
    help:
      "LASER's rate: a matrix of m×n gets rank int(min(m,n)·(10-RHO)/10). In --mode laser it stands in the place of --energy or " +
      "--ratio; in 4d-tucker-laser it is for the feed-forward matrices.",
    defaultText: "7.5 for 4d-tucker-laser",
    tasks: compressing,
  }),
  algorithm: option({
    placeholder: ALGORITHMS.join("|"),
    schema: oneOf(ALGORITHMS),
    help:
      "How 4-D Tucker factors are found: hooi sweeps to the lowest error; hosvd slices them from each layer's full HOSVD, which is " +
      "computed once and kept (as large as the weights): other ranks then take milliseconds, at a slightly higher error.",
    defaultText: "hooi",
    tasks: compressing,
  }),
  balance: option({
    schema: flag,
    help: "Scale Q, K, V and O to equal norm before the decomposition, and back after it.",
    defaultText: "off",
    tasks: all,
  }),
  layout: option({
    placeholder: "heads|reference",
    schema: oneOf(["heads", "reference"]),
    help: "Split weights by real attention heads, or as the paper's code views them.",
    defaultText: "heads",
    tasks: all,
  }),
  execution: option({
    placeholder: "factored|dense",
    schema: oneOf(["factored", "dense"]),
    help: "Write the factors (smaller and faster), or the dense reconstruction (as the paper's code does).",
    defaultText: "factored",
    tasks: ["compress"],
  }),
  cache: option({
    placeholder: "full|per-head|compressed",
    schema: oneOf(["full", "per-head", "compressed"]),
    help:
      "Key-value cache of a decoder: the shapes that its clients know; r2 numbers per head (rotated keys stay whole); or " +
      "layer by layer the smaller of those and the latent z (r1 numbers a token for keys and values), which is slower " +
      "where keys are rotated.",
    defaultText: "full",
    tasks: ["compress"],
  }),
  device: option({
    placeholder: "auto|webgpu|cpu",
    schema: oneOf(["auto", "webgpu", "cpu"]),
    help: "Where the decomposition runs; auto takes a GPU (no software adapter) where it wins a trial against the CPU.",
    defaultText: "auto",
    tasks: all,
  }),
  inference: option({
    placeholder: "auto|webgpu|cpu",
    schema: oneOf(["auto", "webgpu", "cpu"]),
    help: "Where ONNX Runtime runs the model.",
    defaultText: "auto",
    tasks: ["start", "eval"],
  }),
  host: option({
    placeholder: "HOST",
    schema: z.string().regex(/^[A-Za-z0-9_.:[\]%-]+$/, "must be a host name or an IP address"),
    help: "Address to listen on. On any but a loopback address the changing routes need TUCKERD_ADMIN_KEY.",
    defaultText: "127.0.0.1",
    tasks: ["start"],
  }),
  port: option({
    placeholder: "PORT",
    schema: integer(0, 65535),
    help:
      "Port to listen on; 0 takes a free one. The variable PORT is honoured where neither --port nor TUCKERD_PORT is set.",
    defaultText: "8000",
    tasks: ["start"],
  }),
  "max-body": option({
    placeholder: "BYTES",
    schema: integer(1024),
    help: "Largest request body that is read.",
    defaultText: "1048576",
    tasks: ["start"],
  }),
  queue: option({
    placeholder: "N",
    schema: integer(1),
    help: "Requests that may wait for the model; beyond them the answer is 429 with Retry-After.",
    defaultText: "64",
    tasks: ["start"],
  }),
  generations: option({
    placeholder: "N",
    schema: integer(1, 1000),
    help: "Rank settings to hold in memory, the serving one included, for comparison and roll-back.",
    defaultText: "8",
    tasks: ["start"],
  }),
  "cache-dir": option({
    placeholder: "DIR",
    schema: text,
    help: "Folder where factors are kept between runs; off keeps them nowhere.",
    defaultText: "$XDG_CACHE_HOME/tuckerd, else ~/.cache/tuckerd",
    tasks: all,
  }),
  svg: option({
    placeholder: "FILE",
    schema: text,
    help: "Also draw the singular values, and error against ratio, into an SVG file.",
    tasks: ["spectrum"],
  }),
  json: option({
    schema: flag,
    help: "Print the report as JSON on stdout.",
    defaultText: "off",
    tasks: ["compress", "spectrum", "eval"],
  }),
  "api-key": option({
    schema: secret,
    secret: true,
    help: "Bearer key that the answering and reading routes ask for; they are open without it.",
    tasks: ["start"],
  }),
  "admin-key": option({
    schema: secret,
    secret: true,
    help:
      "Bearer key that the changing routes ask for; without it they are open to requests for localhost on a loopback address, and closed elsewhere.",
    tasks: ["start"],
  }),
} as const;

/** Name of a setting, as on the command line without its dashes. */
export type OptionName = keyof typeof OPTIONS;
/** Every setting that was given, parsed. */
export type OptionValues = { [K in OptionName]?: z.output<(typeof OPTIONS)[K]["schema"]> };

/** `max-body` → `TUCKERD_MAX_BODY`. */
export function variableName(name: OptionName): string {
  return `TUCKERD_${name.toUpperCase().replaceAll("-", "_")}`;
}

/** The settings of one task, in the order of the table. */
export function optionsOf(task: TaskName): [OptionName, OptionSpec][] {
  return (Object.entries(OPTIONS) as [OptionName, OptionSpec][]).filter(([, spec]) => spec.tasks.includes(task));
}
