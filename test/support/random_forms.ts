/**
 * Random factors for any form of a block, and the dense weights that they stand for.
 *
 * @module
 */
import { canBeLatent } from "../../src/attention/form.ts";
import type {
  AttentionBiases,
  AttentionBlock,
  AttentionWeights,
  BlockForm,
  FactorSlot,
} from "../../src/attention/types.ts";
import { randomBasis } from "./random_tucker.ts";
import type { Numbers } from "./session.ts";

/** A row-major matrix. */
interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

/**
 * A random form that the block allows, from the projection forms of all decompositions. Blocks with a cache run reduced only
 * where that may be `compressed`, and keep z in it only where that may be `latent`.
 */
export function randomForm(
  block: AttentionBlock,
  random: () => number,
  cache: "full" | "compressed" | "latent" = "full",
): BlockForm {
  const form = randomFormOf(block, random, cache);
  if (cache !== "latent" || block.noLatentCacheBecause !== undefined) return form;
  // One tensor for both holds z for both or for neither.
  const both = random() < 0.7;
  const latent = (["key", "value"] as const).filter((name) =>
    canBeLatent(block, form, name) && (block.oneHeadSize ? both : random() < 0.7)
  );
  return latent.length === 0 ? form : { ...form, latent };
}

function randomFormOf(block: AttentionBlock, random: () => number, cache: string): BlockForm {
  const pick = <T>(...values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
  const cached = block.cacheNumbersPerToken > 0 && cache === "full";
  const queryKey = block.queryKeyExpandedBecause === undefined && !cached && random() < 0.7 ? "reduced" : "expanded";
  const valueOutput = block.valueOutputExpandedBecause === undefined && !cached && random() < 0.7
    ? "reduced"
    : "expanded";
  if (block.oneHeadSize) return oneSizeForm(block, queryKey === "reduced" && valueOutput === "reduced", pick);
  const grouped = block.keyValueHeads < block.heads;
  const keyValueHeads = grouped && random() < 0.5 ? block.heads : block.keyValueHeads;
  const small = ["shared", "pair", "dense"] as const;
  const any = [...small, "kept"] as const;
  // Kept matrices have the file's heads.
  const keyValue = keyValueHeads === block.keyValueHeads ? any : small;
  return {
    query: queryKey === "reduced" ? pick(...small) : pick(...any),
    key: queryKey === "reduced" ? pick(...small) : pick(...keyValue),
    value: valueOutput === "reduced" ? pick(...small) : pick(...keyValue),
    output: valueOutput === "reduced" ? pick(...small) : pick(...any),
    queryKey,
    valueOutput,
    keyValueHeads,
  };
}

/** Keys and values with heads of one size: both reduced, from one subspace, or neither. */
function oneSizeForm(
  { keyValueHeads }: AttentionBlock,
  reduced: boolean,
  pick: <T>(...values: readonly T[]) => T,
): BlockForm {
  const form = (): BlockForm["query"] =>
    reduced ? pick("shared", "pair", "dense") : pick("shared", "pair", "dense", "kept");
  const [key, value] = reduced ? ["shared", "shared"] as const : [form(), form()];
  const space = reduced ? "reduced" : "expanded";
  return { query: form(), key, value, output: form(), queryKey: space, valueOutput: space, keyValueHeads };
}

/** What a block is fed in a form, and the weights with which the original graph computes the same. */
export interface RandomFactors {
  readonly feeds: Readonly<Record<string, Numbers>>;
  readonly weights: AttentionWeights;
  /** Ranks by the names of the slots' dimensions. */
  readonly ranks: Readonly<Record<string, number>>;
}

/** Random factors for a block's slots. */
export function randomFactors(
  slots: readonly FactorSlot[],
  block: {
    readonly form: BlockForm;
    readonly weights: AttentionWeights;
    readonly biases: AttentionBiases;
    readonly oneHeadSize?: true | undefined;
  },
  random: () => number,
): RandomFactors {
  const { form, weights, biases } = block;
  const { hiddenSize: d, headSize: h, heads } = weights;
  const symbols = new Map<string, number>();
  const size = (dim: number | string): number => {
    if (typeof dim === "number") return dim;
    const [count, symbol] = dim.includes("*") ? dim.split("*") as [string, string] : ["1", dim];
    const name = block.oneHeadSize ? symbol.replace("value.r2", "key.r2") : symbol;
    if (!symbols.has(name)) symbols.set(name, 1 + Math.floor(random() * (name.includes("r2") ? h : d)));
    return Number(count) * symbols.get(name)!;
  };
  const factors = new Map<string, Matrix>();
  for (const { role, shape } of slots) {
    const [rows, columns = 1] = shape.map(size) as [number, number];
    const data = Float64Array.from({ length: rows * columns }, () => (random() - 0.5) * 2 / Math.sqrt(rows));
    factors.set(role, { rows, columns, data });
  }
  // A block whose projections are all kept has no slots, and no small space.
  const rho = (name: "key" | "value"): number =>
    symbols.get(`layer${slots[0]?.layer}.${block.oneHeadSize ? "key" : name}.r2`) ?? h;
  const basis = (name: "key" | "value"): Matrix => {
    const columns = rho(name);
    return { rows: h, columns, data: randomBasis(h, columns, random) };
  };
  const bases = { queryKey: basis("key"), valueOutput: basis("value") };
  const get = (role: string): Matrix => factors.get(role)!;

  const projected = (name: "query" | "key" | "value"): Float32Array => {
    if (form[name] === "kept") return weights[name];
    const reduced = (name === "value" ? form.valueOutput : form.queryKey) === "reduced";
    const b = get(`${name}.b`);
    const narrow = form[name] === "shared" ? get("down") : form[name] === "pair" ? get(`${name}.a`) : undefined;
    const all = narrow === undefined ? b : multiply(narrow, b);
    const back = reduced
      ? transpose(name === "value" ? bases.valueOutput : bases.queryKey)
      : form[name] === "shared"
      ? get(`${name}.expand`)
      : undefined;
    const stored = name === "query" ? heads : form.keyValueHeads;
    const parts = Array.from({ length: heads }, (_, i) => {
      const own = columnBlock(all, Math.floor(i / (heads / stored)), stored);
      return back === undefined ? own : multiply(own, back);
    });
    return Float32Array.from({ length: d * heads * h }, (_, at) => {
      const column = at % (heads * h);
      return parts[Math.floor(column / h)]!.data[Math.floor(at / (heads * h)) * h + column % h]!;
    });
  };
  const output = (): Float32Array => {
    if (form.output === "kept") return weights.output;
    const first = get(form.output === "dense" ? "output.dense" : "output.a");
    const last = form.output === "dense" ? undefined : get(form.output === "shared" ? "up" : "output.b");
    const all = last === undefined ? first : multiply(first, last);
    const front = form.valueOutput === "reduced"
      ? bases.valueOutput
      : form.output === "shared"
      ? get("output.reduce")
      : undefined;
    const rows = all.rows / heads;
    return Float32Array.from(
      Array.from({ length: heads }, (_, i) => {
        const own = { rows, columns: d, data: all.data.slice(i * rows * d, (i + 1) * rows * d) };
        return [...(front === undefined ? own : multiply(front, own)).data];
      }).flat(),
    );
  };
  const dense = {
    ...weights,
    query: projected("query"),
    key: projected("key"),
    value: projected("value"),
    output: output(),
  };
  if (factors.has("query.bias")) {
    const small = Array.from({ length: heads }, (_, i) => {
      const row = { rows: 1, columns: h, data: Float64Array.from(biases.query!.subarray(i * h, (i + 1) * h)) };
      return [...multiply(row, bases.queryKey).data];
    });
    factors.set("query.bias", { rows: heads * rho("key"), columns: 1, data: Float64Array.from(small.flat()) });
  }
  if (factors.has("output.bias")) {
    const value = { rows: 1, columns: heads * h, data: Float64Array.from(biases.value ?? new Float32Array(heads * h)) };
    const folded = multiply(value, { rows: heads * h, columns: d, data: Float64Array.from(dense.output) });
    const data = folded.data.map((number, i) => number + (biases.output?.[i] ?? 0));
    factors.set("output.bias", { rows: d, columns: 1, data });
  }
  const feeds = slots.map(({ role, name, shape }) => {
    const { data } = get(role);
    return [name, { shape: shape.map(size), data }] as const;
  });
  const ranks = { ...Object.fromEntries(symbols), [`layer${slots[0]?.layer}.value.r2`]: rho("value") };
  return { feeds: Object.fromEntries(feeds), weights: dense, ranks };
}

function multiply(a: Matrix, b: Matrix): Matrix {
  if (a.columns !== b.rows) throw new RangeError(`${a.rows}×${a.columns} @ ${b.rows}×${b.columns}`);
  const data = new Float64Array(a.rows * b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.columns; k++) {
      const factor = a.data[i * a.columns + k]!;
      for (let j = 0; j < b.columns; j++) data[i * b.columns + j]! += factor * b.data[k * b.columns + j]!;
    }
  }
  return { rows: a.rows, columns: b.columns, data };
}

function transpose({ rows, columns, data }: Matrix): Matrix {
  const flipped = Float64Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
  return { rows: columns, columns: rows, data: flipped };
}

function columnBlock({ rows, columns, data }: Matrix, block: number, blocks: number): Matrix {
  const width = columns / blocks;
  const part = Float64Array.from(
    { length: rows * width },
    (_, i) => data[Math.floor(i / width) * columns + block * width + i % width]!,
  );
  return { rows, columns: width, data: part };
}
