/**
 * Which of many ONNX files make up a model, by the names that Optimum and transformers.js give them: a form (`model`,
 * `encoder_model`, …), then a precision (`_fp16`, …), in `onnx/` or at the root.
 *
 * @module
 */

/** Precisions by transformers.js' names, the most exact first, with what file names end in. */
const endings = {
  fp32: [""],
  fp16: ["_fp16"],
  q8: ["_quantized", "_q8"],
  int8: ["_int8"],
  uint8: ["_uint8"],
  q4: ["_q4"],
  q4f16: ["_q4f16"],
  int4: ["_int4"],
  bnb4: ["_bnb4"],
  q2: ["_q2"],
  q2f16: ["_q2f16"],
  q1: ["_q1"],
  q1f16: ["_q1f16"],
} as const;

/** A precision in which a model may be kept. */
export type Precision = keyof typeof endings;

/** All of them, the most exact first. */
export const PRECISIONS = Object.keys(endings) as readonly Precision[];

const folders = ["onnx/", ""];

/** A decoder that runs with and without a past. */
const mergedDecoder = "decoder_model_merged";
/** A decoder's first call, and the calls after it. */
const separateDecoders = ["decoder_model", "decoder_with_past_model"];
/** What a model that is kept in several graphs consists of: the forms of each part. */
const partForms: readonly (readonly string[])[] = [
  ["encoder_model"],
  ["text_model"],
  ["vision_model"],
  ["text_encoder"],
  ["vision_encoder"],
  ["audio_encoder"],
  ["speech_encoder"],
  ["embed_tokens"],
  ["language_model"],
  [mergedDecoder, ...separateDecoders],
];

/**
 * The ONNX files of a model, the most exact precision that all its parts have: a whole model (`model.onnx`) in one, or else an encoder,
 * a decoder and what else there is. Of a decoder the merged form is taken where it is there, else the forms of the first and the later
 * calls.
 *
 * @param paths relative to the model's folder; others than these names are passed over
 * @param options `everyDecoder`: all forms of the decoder that are there; `precision`: only files of that one
 * @returns none where no name is known
 */
export function chooseGraphs(
  paths: readonly string[],
  options: { readonly everyDecoder?: boolean; readonly precision?: Precision | undefined } = {},
): readonly string[] {
  const there = new Set(paths);
  const allowed = options.precision === undefined ? PRECISIONS : [options.precision];
  const precisions = allowed.flatMap((precision): readonly string[] => endings[precision]);
  const name = (folder: string, form: string, precision: string): string => `${folder}${form}${precision}.onnx`;
  /** Forms of each part that a folder has in one of these precisions. */
  const partsIn = (folder: string, among: readonly string[]): string[][] =>
    partForms.map((forms) =>
      forms.filter((form) => among.some((precision) => there.has(name(folder, form, precision))))
    ).filter((forms) => forms.length > 0);
  const decoders = (forms: readonly string[]): readonly string[] =>
    forms.includes(mergedDecoder) && options.everyDecoder !== true ? [mergedDecoder] : forms;
  for (const precision of precisions) {
    for (const folder of folders) {
      const whole = name(folder, "model", precision);
      if (there.has(whole)) return [whole];
    }
    for (const folder of folders) {
      const found = partsIn(folder, [precision]);
      if (found.length === 0 || found.length < partsIn(folder, precisions).length) continue;
      return found.flatMap((forms) => decoders(forms).map((form) => name(folder, form, precision)));
    }
  }
  // No precision has them all: each part in its own most exact one.
  for (const folder of folders) {
    const found = partForms.flatMap((forms) => {
      const precision = precisions.find((precision) => forms.some((form) => there.has(name(folder, form, precision))));
      const own = forms.filter((form) => precision !== undefined && there.has(name(folder, form, precision)));
      return decoders(own).map((form) => name(folder, form, precision!));
    });
    if (found.length > 0) return found;
  }
  return [];
}
