/**
 * GPT-2's byte-level alphabet: every byte as a visible character, so that a vocabulary of 256 characters covers all text.
 *
 * @module
 */
import type { AlignedText } from "./aligned_text.ts";

/** The character for each byte: printable Latin-1 characters stand for themselves, the others for U+0100 and up. */
const byteCharacters: readonly string[] = (() => {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = byte >= 0x21 && byte <= 0x7E || byte >= 0xA1 && byte <= 0xAC || byte >= 0xAE;
    characters.push(String.fromCharCode(printable ? byte : next++));
  }
  return characters;
})();

/** The character that stands for a space. */
export const byteSpace: string = byteCharacters[0x20]!;

const encoder = new TextEncoder();

/** Every character as the characters of its UTF-8 bytes, all with its origin. */
export function toByteCharacters(text: AlignedText): AlignedText {
  return text.expand((character) => Array.from(encoder.encode(character), (byte) => byteCharacters[byte]!));
}
