/**
 * A text under normalisation, whose every character still knows where it came from. The rules are those of Hugging Face's
 * Rust tokenizers (`NormalizedString`), so offsets come out as theirs. Characters are Unicode code points.
 *
 * @module
 */

/**
 * One character of a transformed text, and how it relates to the text before:
 * 0 replaces the next character, +1 is inserted after the one before it, −n replaces one character and removes n more.
 */
export type Edit = readonly [character: string, change: number];

/** Characters, and for each the half-open range `[starts[i], ends[i])` of the original text, in code points. */
export class AlignedText {
  readonly chars: readonly string[];
  readonly starts: readonly number[];
  readonly ends: readonly number[];

  constructor(chars: readonly string[], starts: readonly number[], ends: readonly number[]) {
    this.chars = chars;
    this.starts = starts;
    this.ends = ends;
  }

  /** A text as it was given. */
  static of(text: string): AlignedText {
    const chars = [...text];
    return new AlignedText(chars, chars.map((_, index) => index), chars.map((_, index) => index + 1));
  }

  get length(): number {
    return this.chars.length;
  }

  /** The characters as one string. */
  text(): string {
    return this.chars.join("");
  }

  /** Range of the original text behind characters `[start, end)`; `start < end`. */
  original(start: number, end: number): [number, number] {
    return [this.starts[start]!, this.ends[end - 1]!];
  }

  /** Characters `[start, end)` alone. */
  slice(start: number, end: number): AlignedText {
    return new AlignedText(this.chars.slice(start, end), this.starts.slice(start, end), this.ends.slice(start, end));
  }

  /** Only the characters that pass. */
  filter(keep: (character: string) => boolean): AlignedText {
    if (this.chars.every(keep)) return this;
    const chars: string[] = [], starts: number[] = [], ends: number[] = [];
    this.chars.forEach((character, index) => {
      if (!keep(character)) return;
      chars.push(character);
      starts.push(this.starts[index]!);
      ends.push(this.ends[index]!);
    });
    return new AlignedText(chars, starts, ends);
  }

  /** Every character replaced by one or more; those after the first share its origin. */
  expand(replacement: (character: string) => string | readonly string[]): AlignedText {
    const chars: string[] = [], starts: number[] = [], ends: number[] = [];
    this.chars.forEach((character, index) => {
      const replaced = replacement(character);
      for (const part of replaced === character ? [character] : replaced) {
        chars.push(part);
        starts.push(this.starts[index]!);
        ends.push(this.ends[index]!);
      }
    });
    return new AlignedText(chars, starts, ends);
  }

  /** Applies edits that together consume exactly the characters of this text. */
  edit(edits: Iterable<Edit>): AlignedText {
    const chars: string[] = [], starts: number[] = [], ends: number[] = [];
    let next = 0;
    for (const [character, change] of edits) {
      const origin = change > 0 ? Math.max(0, next - 1) : next;
      chars.push(character);
      starts.push(this.starts[origin]!);
      ends.push(this.ends[origin]!);
      if (change <= 0) next += 1 - change;
    }
    return new AlignedText(chars, starts, ends);
  }

  /** Stretches of this text replaced by what `rewrite` makes of them; the characters between them stay. */
  rewriteStretches(
    stretches: readonly (readonly [start: number, end: number])[],
    rewrite: (stretch: AlignedText) => AlignedText,
  ): AlignedText {
    const pieces: AlignedText[] = [];
    let done = 0;
    for (const [start, end] of stretches) {
      pieces.push(this.slice(done, start), rewrite(this.slice(start, end)));
      done = end;
    }
    pieces.push(this.slice(done, this.length));
    return new AlignedText(
      pieces.flatMap(({ chars }) => chars),
      pieces.flatMap(({ starts }) => starts),
      pieces.flatMap(({ ends }) => ends),
    );
  }

  /** `prefix` put before; it shares the origin of the first character. An empty text stays empty. */
  prepend(prefix: string): AlignedText {
    if (this.length === 0) return this;
    const added = [...prefix];
    return new AlignedText(
      [...added, ...this.chars],
      [...added.map(() => this.starts[0]!), ...this.starts],
      [...added.map(() => this.ends[0]!), ...this.ends],
    );
  }

  /** Every match replaced by `content`, whose characters share the origin of the match's last character. */
  replaceAll(pattern: RegExp, content: string): AlignedText {
    const chars: string[] = [], starts: number[] = [], ends: number[] = [];
    const keep = (from: number, to: number): void => {
      for (let index = from; index < to; index++) {
        chars.push(this.chars[index]!);
        starts.push(this.starts[index]!);
        ends.push(this.ends[index]!);
      }
    };
    let done = 0;
    for (const [start, end] of this.matches(pattern)) {
      keep(done, start);
      for (const character of content) {
        chars.push(character);
        starts.push(this.starts[Math.max(0, end - 1)]!);
        ends.push(this.ends[Math.max(0, end - 1)]!);
      }
      done = end;
    }
    keep(done, this.length);
    return new AlignedText(chars, starts, ends);
  }

  /** Where a global, unicode-aware pattern matches, in characters; empty matches are left out. */
  matches(pattern: RegExp): [start: number, end: number][] {
    const found: [number, number][] = [];
    let unit = 0, index = 0;
    const indexAt = (target: number): number => {
      while (unit < target) unit += this.chars[index++]!.length;
      return index;
    };
    for (const match of this.text().matchAll(pattern)) {
      if (match[0].length === 0) continue;
      found.push([indexAt(match.index), indexAt(match.index + match[0].length)]);
    }
    return found;
  }
}
