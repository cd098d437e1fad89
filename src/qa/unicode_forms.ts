/**
 * Unicode normalisation forms that keep track of origins. JavaScript normalises whole strings; which character came from
 * which is recovered by decomposing one character at a time and finding the pieces again.
 *
 * @module
 */
import type { AlignedText, Edit } from "./aligned_text.ts";

/** Unicode's normalisation forms. */
export type UnicodeForm = "NFC" | "NFD" | "NFKC" | "NFKD";

/** Stretches that a form may change: ASCII stays as it is, but for the character that a mark is composed with. */
const changeable = /[\0-\x7F]?[^\0-\x7F]+/gu;

/** A text in a normalisation form. A composed character has the origin of its first part. */
export function toUnicodeForm(text: AlignedText, form: UnicodeForm): AlignedText {
  return text.rewriteStretches(text.matches(changeable), (stretch) => normalizeStretch(stretch, form));
}

function normalizeStretch(text: AlignedText, form: UnicodeForm): AlignedText {
  const whole = text.text();
  const normalized = whole.normalize(form);
  if (normalized === whole) return text;
  const composing = form === "NFC" || form === "NFKC";
  const parts = new Parts(decompose(text, form === "NFC" || form === "NFD" ? "NFD" : "NFKD"));
  const edits: Edit[] = [];
  for (const character of normalized) {
    if (!composing) {
      edits.push([character, parts.take(character)]);
      continue;
    }
    const pieces = [...character.normalize("NFD")];
    const change = pieces.reduce((sum, piece) => sum + parts.take(piece), 0);
    edits.push([character, change - (pieces.length - 1)]);
  }
  return text.edit(edits);
}

/** Every character decomposed by itself: the first part replaces it, the others are inserted. */
function decompose(text: AlignedText, form: "NFD" | "NFKD"): Edit[] {
  return text.chars.flatMap((character) =>
    [...character.normalize(form)].map((part, index): Edit => [part, index === 0 ? 0 : 1])
  );
}

/** Decomposed characters waiting to be found again; canonical ordering moves marks by a few places only. */
class Parts {
  readonly #parts: readonly Edit[];
  readonly #taken: Uint8Array;
  #first = 0;

  constructor(parts: readonly Edit[]) {
    this.#parts = parts;
    this.#taken = new Uint8Array(parts.length);
  }

  /** Change of the next part that is this character. */
  take(character: string): number {
    while (this.#taken[this.#first] === 1) this.#first++;
    for (let index = this.#first; index < this.#parts.length; index++) {
      const [part, change] = this.#parts[index]!;
      if (this.#taken[index] === 1 || part !== character) continue;
      this.#taken[index] = 1;
      return change;
    }
    throw new RangeError("Unicode normalisation gave a character that no part of the text decomposes to");
  }
}
