/**
 * Reads data sets in the SQuAD 1.1 and 2.0 format.
 *
 * @module
 */
import { z } from "zod";
import { TuckerdError } from "../errors.ts";

const Squad = z.object({
  data: z.array(z.object({
    paragraphs: z.array(z.object({
      context: z.string(),
      qas: z.array(z.object({
        id: z.string(),
        question: z.string(),
        is_impossible: z.boolean().optional(),
        answers: z.array(z.object({ text: z.string() })),
      })),
    })),
  })),
});

/** One question with its accepted answers: none where the passage doesn't answer it. */
export interface Example {
  readonly id: string;
  readonly question: string;
  readonly context: string;
  readonly answers: readonly string[];
}

/**
 * Reads a SQuAD file.
 *
 * @throws TuckerdError `not-found` or `invalid` naming the place in the file
 */
export async function readSquad(path: string): Promise<readonly Example[]> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw new TuckerdError("not-found", `can't read the data set ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  let parsed: z.infer<typeof Squad>;
  try {
    parsed = Squad.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new TuckerdError("invalid", `${path} isn't in the SQuAD format: ${why}`, { cause: error });
  }
  return parsed.data.flatMap((article) =>
    article.paragraphs.flatMap(({ context, qas }) =>
      qas.map(({ id, question, answers, is_impossible }) => ({
        id,
        question,
        context,
        answers: is_impossible === true ? [] : answers.map((answer) => answer.text),
      }))
    )
  );
}
