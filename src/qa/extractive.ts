/**
 * Extractive question answering: the answer is a span of the context. It gives what Hugging Face's question-answering
 * pipeline gives (transformers 4.57 with a fast tokenizer), to the score.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { HostTensor, TensorInfo } from "../runtime/types.ts";
import { AnswerList } from "./answers.ts";
import type { Encoding } from "./encoding.ts";
import { firstPosition, maxPositions, type ModelConfig } from "./model_config.ts";
import { toModelInputs } from "./model_inputs.ts";
import { checkParameters, checkText } from "./parameters.ts";
import { bestSpans } from "./spans.ts";
import type { QaTokenizer } from "./tokenizer.ts";
import type { Answer, Question } from "./types.ts";

/** Windows that one run takes at most: enough for full use of the cores, small enough that other requests get a turn. */
const windowsPerRun = 8;

/** What extractive question answering needs of a model. */
export interface ExtractiveOptions {
  readonly tokenizer: QaTokenizer;
  readonly config: ModelConfig;
  /** The model's inputs, as the engine tells them. */
  readonly inputs: readonly TensorInfo[];
  /** Runs the model; `start_logits` and `end_logits` of shape [batch, tokens] are expected of it. */
  readonly run: (inputs: Readonly<Record<string, HostTensor>>) => Promise<Readonly<Record<string, HostTensor>>>;
}

/** Answers questions by spans of their contexts. */
export interface ExtractiveAnswerer {
  /** Answers best first, at least one. Throws `invalid` for what can't be asked. */
  answer(question: Question): Promise<readonly Answer[]>;
  /** Longest window in tokens. */
  readonly maxInputTokens: number;
}

/** Extractive question answering on a model. Cheap to make: one for each pinned generation is meant. */
export function createExtractive({ tokenizer, config, inputs, run }: ExtractiveOptions): ExtractiveAnswerer {
  if (tokenizer.paddingSide === "left") {
    throw new TuckerdError(
      "unsupported",
      "The tokenizer pads on the left, so it would put the context before the question; tuckerd answers with models that " +
        "pad on the right",
    );
  }
  const maxInputTokens = longestInput(tokenizer, config);
  const batchOptions = { inputs, paddingId: tokenizer.paddingId, firstPosition: firstPosition(config) };

  async function answer({ question, context, parameters = {}, offsets = "code_points" }: Question): Promise<Answer[]> {
    checkText("question", question);
    checkText("context", context);
    const checked = checkParameters(parameters, maxInputTokens);
    const windows = tokenizer.encodePair(question, context, {
      maxLength: checked.max_seq_len,
      stride: checked.doc_stride,
    });
    const answers = new AnswerList(context, checked);
    for (let first = 0; first < windows.length; first += windowsPerRun) {
      const batch = windows.slice(first, first + windowsPerRun);
      const outputs = await run(toModelInputs(batch, batchOptions));
      const starts = rowsOf("start_logits", outputs, batch);
      const ends = rowsOf("end_logits", outputs, batch);
      batch.forEach((window, row) =>
        answers.addWindow(
          window,
          bestSpans(window, {
            startLogits: starts[row]!,
            endLogits: ends[row]!,
            classificationId: tokenizer.classificationId,
            maxLength: checked.max_answer_len,
            count: answers.candidatesPerWindow,
          }),
        )
      );
    }
    return answers.best(offsets);
  }

  return { answer, maxInputTokens };
}

/** What both the tokenizer and the model's position table allow. */
function longestInput(tokenizer: QaTokenizer, config: ModelConfig): number {
  const longest = Math.min(tokenizer.modelMaxLength ?? Infinity, maxPositions(config));
  return Number.isFinite(longest) && longest < Number.MAX_SAFE_INTEGER ? longest : unboundedInput;
}

/** Longest input where neither file sets one (relative positions): what a window may cost. */
const unboundedInput = 4096;

/** An output [batch, tokens] as one row per window. */
function rowsOf(
  name: string,
  outputs: Readonly<Record<string, HostTensor>>,
  batch: readonly Encoding[],
): Float32Array[] {
  const tensor = Object.hasOwn(outputs, name) ? outputs[name] : undefined;
  const [rows, width = 0] = tensor?.shape ?? [];
  if (tensor === undefined || tensor.shape.length !== 2 || rows !== batch.length) {
    throw new TuckerdError(
      "bad-model",
      `Question answering needs an output "${name}" of shape [batch, tokens]; the model gives ` +
        Object.entries(outputs).map(([output, { shape }]) => `${output} [${shape.join(", ")}]`).join(", "),
    );
  }
  const values = toFloat32(name, tensor);
  return batch.map((_, row) => values.subarray(row * width, (row + 1) * width));
}

function toFloat32(name: string, { type, data }: HostTensor): Float32Array {
  if (data instanceof Float32Array) return data;
  if (type === "float16" && data instanceof Uint16Array) {
    return Float32Array.from(new Float16Array(data.buffer, data.byteOffset, data.length));
  }
  throw new TuckerdError("bad-model", `Question answering needs floating-point "${name}"; the model gives ${type}`);
}
