/**
 * One product for query, key and value, as in models that pack their projections: where all three take z and the factors are
 * constants, their matrices stand side by side.
 *
 *     z [query.b | key.b | value.b] + [query.bias | 0 | value.bias]  → Split → q̃, k̃, ṽ
 *
 * Decoding one token, each product costs as much to hand to two threads as to compute: with the 256 × 256 matrices of a
 * 1024-wide decoder at (256,16,4), one of three times the width takes half the time of three.
 *
 * @module
 */
import { release } from "../../release.ts";
import type { LocatedBlock } from "../describe.ts";
import type { BlockForm, FactorRole, FactorSlot } from "../types.ts";
import type { FactorNumbers, ModelWriter, Numbers } from "./writer.ts";

const PARTS = ["query", "key", "value"] as const;

/** The joined factors of a block, as initializers of the model. */
export interface PackedFactors {
  /** r1 × the sum of `widths`. */
  readonly matrix: string;
  /** Undefined where neither query nor value has one. */
  readonly bias: string | undefined;
  /** Columns of query, key and value. */
  readonly widths: readonly number[];
  /** Version of the standard operators in the model: Split takes sizes as an input from 13 on. */
  readonly opset: number;
}

/** The factors that a block takes joined; none where its parts read different z, or are read one by one. */
export function packedRoles(block: LocatedBlock, form: BlockForm): ReadonlySet<FactorRole> {
  const shared = PARTS.every((name) => form[name] === "shared") && (form.latent ?? []).length === 0;
  const oneStream = block.sites.every(({ query, key, value }) =>
    [key, value].every((view) => !view.fromCache && view.projection.input === query.projection.input)
  );
  const packs = shared && oneStream && block.twins.length === 0;
  return new Set(packs ? ["query.b", "key.b", "value.b", "query.bias", "value.bias"] : []);
}

/** Adds the joined factors to the model. */
export function addPackedFactors(
  writer: ModelWriter,
  slots: readonly FactorSlot[],
  { type, opset, numbers }: {
    readonly type: number;
    readonly opset: number;
    readonly numbers: (slot: FactorSlot) => FactorNumbers;
  },
): PackedFactors {
  const of = (role: FactorRole): FactorNumbers | undefined => {
    const slot = slots.find((each) => each.role === role);
    return slot && numbers(slot);
  };
  const parts = PARTS.map((name) => of(`${name}.b`)!);
  const widths = parts.map(({ shape }) => shape[1]!);
  const width = widths.reduce((sum, each) => sum + each, 0);
  const rows = parts[0]!.shape[0]!;
  const add = (role: string, shape: readonly number[], data: Numbers): string => {
    const name = writer.fresh(`tuckerd.layer${slots[0]!.layer}.${role}`);
    writer.floats({ name, type }, { shape, data });
    return name;
  };
  const matrix = add(
    "packed.b",
    [rows, width],
    joined(parts.map(({ data }) => data), (all) => sideBySide(all, widths)),
  );
  const biases = (["query", "value"] as const).flatMap((name) => {
    const bias = of(`${name}.bias`);
    return bias === undefined ? [] : { data: bias.data, start: name === "query" ? 0 : widths[0]! + widths[1]! };
  });
  if (biases.length === 0) return { matrix, bias: undefined, widths, opset };
  const padded = joined(biases.map(({ data }) => data), (parts) => {
    const whole = new Float32Array(width);
    parts.forEach((part, i) => whole.set(part, biases[i]!.start));
    return whole;
  });
  return { matrix, bias: add("packed.bias", [width], padded), widths, opset };
}

/** What is made of numbers, now or when they are there. */
function joined(parts: readonly Numbers[], join: (parts: readonly Float32Array[]) => Float32Array): Numbers {
  if (parts.every((part) => part instanceof Float32Array)) return join(parts);
  return async () => {
    const made: Float32Array[] = [];
    for (const part of parts) made.push(part instanceof Float32Array ? part : await part());
    const whole = join(made);
    for (const [i, part] of parts.entries()) if (!(part instanceof Float32Array)) release(made[i]!);
    return whole;
  };
}

function sideBySide(parts: readonly Float32Array[], widths: readonly number[]): Float32Array {
  const width = widths.reduce((sum, each) => sum + each, 0);
  const rows = parts[0]!.length / widths[0]!;
  const whole = new Float32Array(rows * width);
  let column = 0;
  for (const [i, part] of parts.entries()) {
    const columns = widths[i]!;
    for (let r = 0; r < rows; r++) {
      whole.set(part.subarray(r * columns, (r + 1) * columns), r * width + column);
    }
    column += columns;
  }
  return whole;
}
