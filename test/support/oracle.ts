/**
 * The oracle: tiny transformers with random weights, exported to ONNX in many ways, with reference outputs from PyTorch and
 * Tucker interventions computed by other programs. See test/testdata/oracle.
 *
 * @module
 */

const root = new URL("../testdata/oracle/", import.meta.url);
const architectures = new URL("../testdata/architectures/", import.meta.url);

/** Nested lists of numbers or booleans, as JSON holds a tensor. */
export type Nested = number | boolean | readonly Nested[];

/** One call of a model with the expected outputs. */
export interface OracleCase {
  readonly name: string;
  readonly inputs: Readonly<Record<string, Nested>>;
  readonly outputs: Readonly<Record<string, Nested>>;
}

/** Tokens that a prompt is followed by; prompts may stand in a list of one. */
export interface OracleGreedy {
  readonly prompt: Nested;
  readonly new_tokens: Nested;
}

/** Outputs of the original model. */
export interface OracleReference {
  readonly model: string;
  readonly tolerance: { readonly atol: number; readonly rtol: number };
  readonly cases: readonly OracleCase[];
  /** Absent: it does. */
  readonly model_takes_position_ids?: boolean;
  readonly greedy?: OracleGreedy;
}

/** One replacement of attention weights by their Tucker reconstruction, with the outputs that follow. */
export interface OracleIntervention {
  readonly name: string;
  readonly ranks: readonly [number, number, number];
  readonly layers: readonly { readonly layer: number | string; readonly relative_error: number }[];
  readonly compression_ratio: number;
  /** Inputs are those of the reference case of the same name. */
  readonly cases: readonly Omit<OracleCase, "inputs">[];
  readonly greedy?: OracleGreedy;
}

/** The tensors [d, h, 4, H] of a model's blocks, and what was done to them. */
export interface OracleTucker {
  readonly d_model?: number;
  readonly d_head?: number;
  readonly n_heads?: number;
  readonly num_key_value_heads?: number;
  /** Sizes by block, where the file lists them so. */
  readonly sites?: readonly OracleSite[];
  readonly interventions: readonly OracleIntervention[];
}

/** Sizes of one attention block. */
export interface OracleSite {
  /** A number, or such as `encoder.1`, `decoder.0`, `cross.1`. */
  readonly name?: string;
  readonly d_model?: number;
  readonly d_head?: number;
  readonly n_heads?: number;
  readonly kv_heads?: number;
}

/** A tensor of a safetensors file, row-major. */
export interface OracleTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** One exported graph. */
export interface OracleExport {
  readonly model: string;
  /** Folder and file: `onnx-opset17/model.onnx`. */
  readonly file: string;
  readonly path: string;
}

/** Names of further architectures, in the oracle's layout: see test/testdata/architectures. */
export function furtherArchitectures(): string[] {
  return [...Deno.readDirSync(architectures)].filter((entry) => entry.isDirectory).map(({ name }) => name).sort();
}

/** The folder of a model, of the oracle or of the further architectures. */
function folderOf(model: string): URL {
  const here = furtherArchitectures().includes(model) ? architectures : root;
  return new URL(`${model}/`, here);
}

/** Names of the models that are here. */
export function oracleModels(): string[] {
  return [...Deno.readDirSync(root)].filter((entry) => entry.isDirectory).map((entry) => entry.name).sort();
}

/** The exported graphs of a model. */
export function oracleExports(model: string): OracleExport[] {
  const folder = folderOf(model).pathname;
  return [...Deno.readDirSync(folder)].filter((entry) => entry.isDirectory).flatMap((entry) =>
    [...Deno.readDirSync(`${folder}${entry.name}`)].filter((file) => file.name.endsWith(".onnx")).map((file) => ({
      model,
      file: `${entry.name}/${file.name}`,
      path: `${folder}${entry.name}/${file.name}`,
    }))
  ).sort((a, b) => a.file < b.file ? -1 : 1);
}

/**
 * Whether a graph takes one new token a call with a past. Optimum traces merged decoders so, and these two give wrong logits for
 * more, before anything is done to them.
 */
export function takesOneToken({ model, file }: OracleExport): boolean {
  return ["llama", "llama-gqa"].includes(model) && file === "onnx-torch113-decoders/decoder_model_merged.onnx";
}

/** Inputs and outputs of the original model. */
export function oracleReference(model: string): OracleReference {
  return readJson(new URL("reference.json", folderOf(model))) as OracleReference;
}

/** Tucker interventions with their outputs. */
export function oracleTucker(model: string): OracleTucker {
  return readJson(new URL("tucker.json", folderOf(model))) as OracleTucker;
}

/** Tensors by name: `layer0.W`, `half.layer1.core`, `.U0`, `.U1`, `.U2`, `.W_hat`. */
export function oracleTensors(model: string): Map<string, OracleTensor> {
  return readSafetensors(Deno.readFileSync(new URL("tucker.safetensors", folderOf(model))));
}

/** The same models in other formats: reduced precision, quantised, fused, external data. */
export interface OracleFormat extends OracleExport {
  readonly format: string;
  /** Outputs of that very file; the model's own reference where the file holds the very same weights. */
  readonly reference: OracleReference;
  /** What was done to that very file's weights; to the model's own where the file holds the very same. */
  readonly interventions: readonly OracleIntervention[];
  /** Whether reference and interventions are this file's own, rather than the model's. */
  readonly own: boolean;
}

/** Every model in every other format that is here. */
export function oracleFormats(): OracleFormat[] {
  const formats = new URL("../testdata/oracle_formats/", import.meta.url);
  return [...Deno.readDirSync(formats)].filter(({ isDirectory }) => isDirectory).flatMap(({ name: model }) =>
    [...Deno.readDirSync(new URL(model, formats))].map(({ name: format }) => {
      const folder = new URL(`${model}/${format}/`, formats).pathname;
      const own = JSON.parse(Deno.readTextFileSync(`${folder}reference.json`)) as OracleReference;
      const tucker = JSON.parse(Deno.readTextFileSync(`${folder}tucker.json`)) as OracleTucker;
      const named = { model, format, file: `${format}/model.onnx`, path: `${folder}model.onnx` };
      if ("cases" in own) return { ...named, reference: own, interventions: tucker.interventions, own: true };
      const { interventions } = oracleTucker(model);
      return { ...named, reference: oracleReference(model), interventions, own: false };
    })
  ).sort((a, b) => a.path < b.path ? -1 : 1);
}

/** Inputs of an intervention's case. */
export function caseInputs(reference: OracleReference, name: string): Readonly<Record<string, Nested>> {
  const found = reference.cases.find((entry) => entry.name === name);
  if (found === undefined) throw new TypeError(`${reference.model} has no case ${name}`);
  return found.inputs;
}

/** Shape of nested lists. */
export function nestedShape(nested: Nested): number[] {
  const shape: number[] = [];
  for (let level = nested; Array.isArray(level); level = level[0]) shape.push(level.length);
  return shape;
}

/** The numbers of nested lists, in order. */
export function nestedNumbers(nested: Nested): number[] {
  return Array.isArray(nested) ? nested.flatMap(nestedNumbers) : [Number(nested)];
}

function readJson(file: URL): unknown {
  return JSON.parse(Deno.readTextFileSync(file));
}

/** The safetensors format: length of the header, a JSON header with offsets, then the data. */
export function readSafetensors(bytes: Uint8Array): Map<string, OracleTensor> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, OracleTensor>();
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F32") throw new TypeError(`${name} has type ${dtype}, expected F32`);
    tensors.set(name, { shape, data: new Float32Array(bytes.slice(8 + length + start, 8 + length + end).buffer) });
  }
  return tensors;
}
