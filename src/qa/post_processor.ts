/**
 * The post-processors of tokenizer.json for pairs: they put the special tokens around the two texts, and trim the spaces that
 * byte-level tokens begin with off their offsets.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { byteSpace } from "./byte_level.ts";
import { concatEncodings, type Encoding, specialToken } from "./encoding.ts";
import type { PostProcessorConfig } from "./tokenizer_file.ts";

/** One part of an encoded pair: one of the two texts, or a special token. */
export type PairPart =
  | { readonly sequence: 0 | 1; readonly typeId: number }
  | { readonly token: string; readonly id: number; readonly typeId: number };

/** How two texts become one input. */
export interface PairTemplate {
  readonly parts: readonly PairPart[];
  /** Passes that trim spaces off offsets; `addedSpace`: a space that was put before the first word isn't in the text. */
  readonly trims: readonly { readonly addedSpace: boolean }[];
}

/** The two texts one after the other, without special tokens. */
const plain: PairTemplate = { parts: [{ sequence: 0, typeId: 0 }, { sequence: 1, typeId: 1 }], trims: [] };

/** The template that a post-processor describes. */
export function createPairTemplate(config: PostProcessorConfig | null | undefined): PairTemplate {
  if (config === null || config === undefined) return plain;
  switch (config.type) {
    case "TemplateProcessing":
      return { parts: config.pair.flatMap((part) => templateParts(part, config.special_tokens)), trims: [] };
    case "BertProcessing": {
      const [cls, sep] = [special(config.cls), special(config.sep)];
      return {
        parts: [cls, { sequence: 0, typeId: 0 }, sep, { sequence: 1, typeId: 1 }, { ...sep, typeId: 1 }],
        trims: [],
      };
    }
    case "RobertaProcessing": {
      const [cls, sep] = [special(config.cls), special(config.sep)];
      // RoBERTa has one token type only, so the second text gets 0 too.
      return {
        parts: [cls, { sequence: 0, typeId: 0 }, sep, sep, { sequence: 1, typeId: 0 }, sep],
        trims: trims(config),
      };
    }
    case "ByteLevel":
      return { parts: plain.parts, trims: trims(config) };
    case "Sequence": {
      const templates = config.processors.map(createPairTemplate);
      return {
        parts: templates.findLast(({ parts }) => parts !== plain.parts)?.parts ?? plain.parts,
        trims: templates.flatMap(({ trims }) => trims),
      };
    }
  }
}

/** Special tokens that a template adds to a pair. */
export function addedTokenCount({ parts }: PairTemplate): number {
  return parts.filter((part) => "token" in part).length;
}

/** One text's tokens with the spaces at their ends trimmed off their offsets, as the template asks. */
export function trimOffsets({ trims }: PairTemplate, encoding: Encoding): Encoding {
  return trims.reduce((result, { addedSpace }) => trimSpaces(result, addedSpace), encoding);
}

/** Both texts with the special tokens. */
export function joinPair({ parts }: PairTemplate, first: Encoding, second: Encoding): Encoding {
  return concatEncodings(parts.map((part) => {
    if ("token" in part) return specialToken(part.id, part.token, part.typeId);
    const encoding = part.sequence === 0 ? first : second;
    return {
      ...encoding,
      sequences: encoding.ids.map(() => part.sequence),
      typeIds: encoding.ids.map(() => part.typeId),
    };
  }));
}

type TemplateConfig = Extract<PostProcessorConfig, { type: "TemplateProcessing" }>;

function templateParts(part: TemplateConfig["pair"][number], specials: TemplateConfig["special_tokens"]): PairPart[] {
  if ("Sequence" in part) return [{ sequence: part.Sequence.id === "A" ? 0 : 1, typeId: part.Sequence.type_id }];
  const { id: token, type_id: typeId } = part.SpecialToken;
  const ids = specials[token]?.ids;
  if (ids === undefined) {
    throw new TuckerdError(
      "bad-model",
      `tokenizer.json's pair template uses "${token}", which its special_tokens lack`,
    );
  }
  return ids.map((id) => ({ token, id, typeId }));
}

function special([token, id]: readonly [string, number]): PairPart & { readonly token: string } {
  return { token, id, typeId: 0 };
}

function trims(config: { trim_offsets: boolean; add_prefix_space: boolean }): PairTemplate["trims"] {
  return config.trim_offsets ? [{ addedSpace: config.add_prefix_space }] : [];
}

function trimSpaces(encoding: Encoding, addedSpace: boolean): Encoding {
  const starts = [...encoding.starts], ends = [...encoding.ends];
  encoding.tokens.forEach((token, index) => {
    const characters = [...token];
    const leading = characters.findIndex((character) => !isSpace(character));
    const spacesBefore = leading < 0 ? characters.length : leading;
    const spacesAfter = characters.length - 1 - characters.findLastIndex((character) => !isSpace(character));
    const start = starts[index]!, end = ends[index]!;
    // One space before the first word may be the one that was added; more than one are the text's own.
    const isAdded = addedSpace && spacesBefore === 1 && (index === 0 || start === 0);
    if (spacesBefore > 0 && !isAdded) starts[index] = Math.min(start + spacesBefore, end);
    if (spacesAfter > 0 && end >= spacesAfter) ends[index] = Math.max(end - spacesAfter, starts[index]!);
  });
  return { ...encoding, starts, ends };
}

function isSpace(character: string): boolean {
  return character === byteSpace || /\p{White_Space}/u.test(character);
}
