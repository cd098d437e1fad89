/**
 * Rotary embeddings in random models: written out in plain operators, and as one operator.
 *
 * @module
 */
import { DataType } from "../../src/onnx/tensor.ts";
import type { GraphWriter } from "./graph_writer.ts";

/** Rows of an operator's tables. */
const TABLE = 32;

/** An operator RotaryEmbedding in place of what is written out. */
export interface RotaryOperator {
  readonly domain: "com.microsoft" | "";
  /** It rotates [B, T, heads · h], before heads are split. */
  readonly joined?: true;
  /**
   * `rows`: it looks rows of tables up for all tokens; `first`: from the first token's on, the same for all rows of the batch (of
   * com.microsoft alone); `given`: cosines and sines come for all tokens (of the standard alone).
   */
  readonly positions: "rows" | "first" | "given";
  /** Each layer has tables of its own, of the same numbers. */
  readonly ownTables?: true;
  /** Names of tables that the model has. */
  readonly tables?: readonly [cosine: string, sine: string];
}

/** How heads are rotated. */
export interface Rotation {
  /** How many of a head's numbers are rotated. */
  readonly rotated: number;
  /** Pairs are neighbours (GPT-J) instead of one number of each half (NeoX, Llama). */
  readonly interleaved?: true;
  /** Cosines and sines are the same for all rows: counted from the past, instead of taken from `positions`. */
  readonly counted?: true;
  /** Angles grow slower the longer the whole sequence is at the time of the call, as with dynamic NTK scaling. */
  readonly dynamic?: true;
  /** The terms of the rotation are summed the other way round. */
  readonly flipped?: true;
  readonly operator?: RotaryOperator;
}

/**
 * Rotations by angles of the model's `positions` [batch, tokens] or `first` [1], or counted from its `mask` [batch, 1, tokens, total] and `x`
 * [batch, tokens, ·].
 */
export class Rotations {
  /** Tables of an operator by theta. */
  readonly #known = new Map<number, readonly string[]>();

  constructor(readonly writer: GraphWriter, readonly rotation: Rotation, readonly headSize: number) {}

  /** What written-out operators make of heads [B, ·, T, h]. `all` are those of all positions; `by` multiplies cosines and sines. */
  written(
    value: string,
    { theta, all = false, by }: { readonly theta: number; readonly all?: boolean; readonly by?: string },
  ): string {
    const { writer, headSize, rotation: { rotated, interleaved, flipped } } = this;
    const [cos, sin] = this.coefficients(theta, all).map((each) =>
      by === undefined ? each : writer.node("Mul", [each, by])
    ) as [string, string];
    const turning = rotated === headSize ? value : writer.slice(value, -1, { end: rotated });
    const other = interleaved ? this.#neighbours(turning, rotated) : this.#halves(turning, rotated);
    const terms = [writer.node("Mul", [turning, cos]), writer.node("Mul", [other, sin])];
    const sum = writer.node("Add", flipped ? terms.toReversed() : terms);
    return rotated === headSize
      ? sum
      : writer.node("Concat", [sum, writer.slice(value, -1, { start: rotated })], { axis: -1n });
  }

  /** What the operator makes of heads, [B, heads, T, h] or joined [B, T, heads · h]. */
  operated(
    value: string,
    { operator: { domain, positions, ownTables, tables: given }, theta, heads }: {
      readonly operator: RotaryOperator;
      readonly theta: number;
      readonly heads: number;
    },
  ): string {
    const { rotated, interleaved } = this.rotation;
    const known = ownTables ? undefined : given ?? this.#known.get(theta);
    const tables = known ?? this.#tables(theta, positions === "given");
    this.#known.set(theta, tables);
    const rows = positions === "first" ? "first" : "positions";
    const partial = rotated < this.headSize ? { rotary_embedding_dim: BigInt(rotated) } : {};
    return this.writer.nodeOf(domain, "RotaryEmbedding", {
      inputs: [
        value,
        ...domain === "com.microsoft" ? [rows, ...tables] : positions === "given" ? tables : [...tables, rows],
      ],
      attributes: { interleaved: interleaved ? 1n : 0n, num_heads: BigInt(heads), ...partial },
    });
  }

  /** Cosines and sines of which an operator picks rows, [TABLE, rotated / 2], or of all tokens, [B, T, rotated / 2]. */
  #tables(theta: number, given: boolean): string[] {
    const { writer, rotation: { rotated, dynamic } } = this;
    const half = rotated / 2;
    const rows = Float32Array.from(
      { length: TABLE * half },
      (_, i) => Math.floor(i / half) * Math.fround(theta ** (-(i % half) / half)),
    );
    if (!given && !dynamic) {
      return [Math.cos, Math.sin].map((of) => writer.tensor([TABLE, half], rows.map(of), writer.type));
    }
    const angles = given
      ? writer.node("Mul", [this.#positions(), this.#frequencies(theta)])
      : writer.tensor([TABLE, half], rows, DataType.FLOAT);
    const slowed = dynamic ? writer.node("Div", [angles, this.#slower()]) : angles;
    return ["Cos", "Sin"].map((opType) => writer.cast(writer.node(opType, [slowed]), writer.type));
  }

  /** (−x₂, x₁) of the two halves. */
  #halves(value: string, rotated: number): string {
    const { writer } = this;
    const [first, second] = [{ end: rotated / 2 }, { start: rotated / 2 }].map((part) => writer.slice(value, -1, part));
    return writer.node("Concat", [writer.node("Neg", [second!]), first!], { axis: -1n });
  }

  /** (−x₂, x₁) of each pair of neighbours. */
  #neighbours(value: string, rotated: number): string {
    const { writer } = this;
    const [even, odd] = [0, 1].map((start) =>
      writer.node("Unsqueeze", [writer.slice(value, -1, { start, step: 2 }), writer.integers(-1)])
    );
    const pairs = writer.node("Concat", [writer.node("Neg", [odd!]), even!], { axis: -1n });
    return writer.node("Reshape", [pairs, writer.integers(0, 0, 0, rotated)]);
  }

  /** Cosines and sines, [B or 1, 1, T, rotated]. */
  coefficients(theta: number, all: boolean): string[] {
    const { writer, rotation: { rotated, interleaved, counted, dynamic } } = this;
    const numbers = all || counted ? writer.cast(this.#counted(all), DataType.FLOAT) : this.#positions();
    const slowed = dynamic ? writer.node("Div", [numbers, this.#slower()]) : numbers;
    const angles = writer.node("Mul", [slowed, this.#frequencies(theta)]);
    const doubled = interleaved
      ? writer.node("Reshape", [
        writer.node("Tile", [writer.node("Unsqueeze", [angles, writer.integers(-1)]), writer.integers(1, 1, 1, 2)]),
        writer.integers(0, 0, rotated),
      ])
      : writer.node("Concat", [angles, angles], { axis: -1n });
    return ["Cos", "Sin"].map((opType) => {
      const numbers = writer.node("Unsqueeze", [writer.node(opType, [doubled]), writer.integers(1)]);
      return writer.type === DataType.FLOAT ? numbers : writer.cast(numbers, writer.type);
    });
  }

  /** [1, 1, half]. */
  #frequencies(theta: number): string {
    const half = this.rotation.rotated / 2;
    const numbers = Float32Array.from({ length: half }, (_, i) => theta ** (-i / half));
    return this.writer.tensor([1, 1, half], numbers, DataType.FLOAT);
  }

  /** [B, T, 1]. */
  #positions(): string {
    return this.writer.cast(this.writer.node("Unsqueeze", ["positions", this.writer.integers(-1)]), DataType.FLOAT);
  }

  /** Number of all positions, [1]. */
  #total(): string {
    return this.writer.node("Gather", [this.writer.node("Shape", ["mask"]), this.writer.integers(3)]);
  }

  /** What angles are divided by, more in every call. */
  #slower(): string {
    const { writer } = this;
    const longer = writer.node("Mul", [writer.cast(this.#total(), DataType.FLOAT), writer.scalar(0.1)]);
    return writer.node("Add", [longer, writer.scalar(1)]);
  }

  /** The positions of new tokens, or of all, [1, ·, 1]. */
  #counted(all: boolean): string {
    const { writer } = this;
    const total = this.#total();
    const squeezed = writer.node("Squeeze", [total, writer.integers(0)]);
    const tokens = writer.node("Squeeze", [
      writer.node("Gather", [writer.node("Shape", ["x"]), writer.integers(1)]),
      writer.integers(0),
    ]);
    const [zero, one] = [0, 1].map((number) => writer.node("Squeeze", [writer.integers(number), writer.integers(0)]));
    const start = all ? zero! : writer.node("Sub", [squeezed, tokens]);
    return writer.node("Unsqueeze", [writer.node("Range", [start, squeezed, one!]), writer.integers(0, 2)]);
  }
}
