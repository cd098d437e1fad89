/**
 * SentencePiece's precompiled normalisation (`Precompiled` in tokenizer.json): a Darts double-array trie from byte strings to
 * replacements. Layout as in SentencePiece's normalizer.cc: a 32-bit little-endian size, the trie's units, then the
 * replacements, each ended by a zero byte.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { AlignedText } from "./aligned_text.ts";

/** Graphemes of at least this many bytes are looked up character by character, as the Rust tokenizers do. */
const longGrapheme = 6;

/** The normalizer that a base64 `precompiled_charsmap` describes. */
export function parseCharsMap(base64: string): (text: AlignedText) => AlignedText {
  const map = new CharsMap(decodeBase64(base64));
  const graphemes = new Intl.Segmenter("und", { granularity: "grapheme" });
  return (text) => {
    const edits: [string, number][] = [];
    for (const { segment } of graphemes.segment(text.text())) {
      const bytes = encoder.encode(segment);
      const whole = bytes.length < longGrapheme ? map.lookUp(bytes) : undefined;
      if (whole !== undefined) {
        replace(edits, segment, whole);
        continue;
      }
      for (const character of segment) {
        const replacement = map.lookUp(encoder.encode(character));
        if (replacement === undefined) edits.push([character, 0]);
        else replace(edits, character, replacement);
      }
    }
    return text.edit(edits);
  };
}

/**
 * Appends the edits that turn `before` into `after`. Surplus characters are inserted; a lack is charged to the last edit,
 * even where that belongs to an earlier replacement (a text that begins with a removed character is thus off by one, as it is
 * with the Rust tokenizers).
 */
function replace(edits: [string, number][], before: string, after: string): void {
  const added = [...after];
  const surplus = added.length - [...before].length;
  added.forEach((character, index) => edits.push([character, index >= added.length - surplus ? 1 : 0]));
  const last = edits.at(-1);
  if (surplus < 0 && last !== undefined) last[1] += surplus;
}

/** The trie and the replacements that its leaves point to. */
class CharsMap {
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;

  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const trieBytes = bytes.length >= 4 ? view.getUint32(0, true) : NaN;
    if (!(trieBytes % 4 === 0 && 4 + trieBytes <= bytes.length)) {
      throw new TuckerdError(
        "bad-model",
        `precompiled_charsmap of tokenizer.json is cut short: ${bytes.length} bytes hold no trie`,
      );
    }
    this.#units = Uint32Array.from({ length: trieBytes / 4 }, (_, index) => view.getUint32(4 + 4 * index, true));
    this.#replacements = bytes.subarray(4 + trieBytes);
  }

  /** The replacement of the shortest prefix of `bytes` that has one. */
  lookUp(bytes: Uint8Array): string | undefined {
    let node = offsetOf(this.#units[0] ?? 0);
    for (const byte of bytes) {
      node ^= byte;
      const unit = this.#units[node] ?? 0;
      if (labelOf(unit) !== byte) return undefined;
      node ^= offsetOf(unit);
      if (hasLeaf(unit)) return this.#replacementAt(valueOf(this.#units[node] ?? 0));
    }
    return undefined;
  }

  #replacementAt(start: number): string {
    const end = this.#replacements.indexOf(0, start);
    return decoder.decode(this.#replacements.subarray(start, end < 0 ? undefined : end));
  }
}

// Fields of a Darts-clone unit.
const hasLeaf = (unit: number): boolean => (unit >>> 8 & 1) === 1;
const valueOf = (unit: number): number => unit & 0x7FFFFFFF;
const labelOf = (unit: number): number => (unit & (1 << 31 | 0xFF)) >>> 0;
const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & 1 << 9) >>> 6);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function decodeBase64(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch (error) {
    throw new TuckerdError("bad-model", "precompiled_charsmap of tokenizer.json isn't base64", { cause: error });
  }
}
