/**
 * Folded factors against the dense reconstruction: a block is run in float64 both ways, as the table of `FactorRole` says,
 * and the outputs must agree.
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert/mod.js";
import {
  type AttentionBiases,
  type AttentionWeights,
  type BlockForm,
  type FactorRole,
  type FactorSlot,
  MATRICES,
  type MatrixName,
} from "../../src/attention/types.ts";
import { createCpuOps, decomposeLayer, type DecomposeOptions, foldFactors, reconstruct } from "../../src/tucker/mod.ts";
import { Mat, runDense, runFolded } from "./block_runner.ts";
import { options, randomWeights } from "./layers.ts";
import { randomArray } from "./random.ts";

const TOKENS = 5;

/**
 * The slots that a graph of this form takes; `expands` as the rewriter would ask for shared and Tucker factors, `sink` as where rows of
 * probabilities don't sum to one.
 */
function slotsOf(form: BlockForm, { expands = false, sink = false }: Pick<FoldCase, "expands" | "sink">): FactorSlot[] {
  const roles: FactorRole[] = [];
  if (form.query === "shared") roles.push("down", "up");
  for (const name of ["query", "key", "value"] as const) {
    if (form[name] === "pair") roles.push(`${name}.a`);
    roles.push(`${name}.b`);
    const reduced = name === "value" ? form.valueOutput === "reduced" : form.queryKey === "reduced";
    if (!reduced && expands) roles.push(`${name}.expand`);
  }
  if (form.output === "dense") roles.push("output.dense");
  else roles.push("output.a");
  if (form.output === "pair") roles.push("output.b");
  if (form.valueOutput === "expanded" && expands) roles.push("output.reduce");
  if (form.queryKey === "reduced") roles.push("query.bias");
  if (form.valueOutput === "reduced") roles.push("output.bias", ...sink ? ["value.bias" as const] : []);
  return roles.map((role) => ({
    layer: 3,
    role,
    name: `slot.${role}`,
    shape: role.endsWith("bias") ? ["n"] : ["m", "n"],
  }));
}

function form(given: Partial<BlockForm> & { all?: BlockForm["query"] }): BlockForm {
  const { all = "shared", ...rest } = given;
  return {
    query: all,
    key: all,
    value: all,
    output: all,
    queryKey: "reduced",
    valueOutput: "reduced",
    keyValueHeads: 4,
    ...rest,
  };
}

const SIZES = { hiddenSize: 12, heads: 4, headSize: 6 };

/** K and V equal within groups of two heads. */
function grouped(weights: AttentionWeights): AttentionWeights {
  const repeat = (matrix: Float32Array): Float32Array =>
    matrix.map((_, index) => {
      const [row, column] = [Math.floor(index / 24), index % 24];
      return matrix[row * 24 + Math.floor(column / 12) * 12 + column % 6]!;
    });
  return { ...weights, key: repeat(weights.key), value: repeat(weights.value) };
}

function allBiases(seed: number): AttentionBiases {
  const [query, key, value, output] = [24, 24, 24, 12].map((length, i) => randomArray(length, seed + i)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { query, key, value, output };
}

interface FoldCase {
  readonly name: string;
  readonly given: Partial<DecomposeOptions>;
  readonly form: BlockForm;
  readonly grouped?: boolean;
  readonly expands?: boolean;
  /** Values carry their bias, since a sink takes part of the probability. */
  readonly sink?: boolean;
  /** Numbers per head in which scores and contexts must run. */
  readonly widths?: { readonly scores?: number; readonly contexts?: number };
}

const mixed = (compressed: readonly MatrixName[]): Partial<BlockForm> =>
  Object.fromEntries(MATRICES.map((name) => [name, compressed.includes(name) ? "pair" : "dense"]));

const tucker = (ranks: DecomposeOptions["ranks"]): Partial<DecomposeOptions> => ({ mode: "4d-tucker", ranks });
const alone = (...matrices: MatrixName[]): Partial<DecomposeOptions> => ({
  mode: "3d-tucker",
  ranks: [7, 3, 4],
  matrices,
});
const laser = (...matrices: MatrixName[]): Partial<DecomposeOptions> => ({ mode: "laser", rank: 5, matrices });
const expanded = { queryKey: "expanded", valueOutput: "expanded" } as const;

const CASES: readonly FoldCase[] = [
  { name: "4-D, reduced", given: tucker([7, 3, 2]), form: form({}), widths: { scores: 3, contexts: 3 } },
  { name: "4-D, balanced", given: { ...tucker([7, 3, 2]), balance: true }, form: form({}) },
  { name: "4-D, full ranks", given: tucker([12, 6, 4]), form: form({}) },
  { name: "4-D, expanded by the graph", given: tucker([7, 3, 3]), form: form(expanded), expands: true },
  { name: "4-D, expanded in the factors", given: tucker([7, 3, 3]), form: form(expanded) },
  { name: "4-D, rotary", given: tucker([7, 3, 3]), form: form({ queryKey: "expanded" }), expands: true },
  { name: "4-D, dense", given: tucker([7, 3, 2]), form: form({ all: "dense", ...expanded }) },
  { name: "4-D, grouped queries", given: tucker([7, 3, 4]), form: form({ keyValueHeads: 2 }), grouped: true },
  {
    name: "3-D, all matrices",
    given: alone(...MATRICES),
    form: form({ all: "pair" }),
    widths: { scores: 3, contexts: 3 },
  },
  { name: "3-D, expanded", given: alone(...MATRICES), form: form({ all: "pair", ...expanded }), expands: true },
  { name: "4-D, with a sink", given: tucker([7, 3, 2]), form: form({}), sink: true, widths: { contexts: 3 } },
  {
    name: "4-D, grouped queries with a sink",
    given: tucker([7, 3, 4]),
    form: form({ keyValueHeads: 2 }),
    grouped: true,
    sink: true,
  },
  { name: "3-D, with a sink", given: alone(...MATRICES), form: form({ all: "pair" }), sink: true },
  { name: "3-D, value only, with a sink", given: alone("value"), form: form(mixed(["value"])), sink: true },
  { name: "low rank, with a sink", given: laser(...MATRICES), form: form({ all: "pair" }), sink: true },
  { name: "3-D, query only", given: alone("query"), form: form(mixed(["query"])), widths: { scores: 4, contexts: 6 } },
  { name: "3-D, key only", given: alone("key"), form: form(mixed(["key"])), widths: { scores: 3 } },
  { name: "3-D, value only", given: alone("value"), form: form(mixed(["value"])), widths: { contexts: 3 } },
  { name: "3-D, output only", given: alone("output"), form: form(mixed(["output"])), widths: { contexts: 3 } },
  {
    name: "3-D, query only, grouped queries",
    given: alone("query"),
    form: form({ ...mixed(["query"]), keyValueHeads: 2 }),
    grouped: true,
    widths: { scores: 5 },
  },
  { name: "low rank, all matrices", given: laser(...MATRICES), form: form({ all: "pair" }), widths: { scores: 6 } },
  { name: "low rank, key and output", given: laser("key", "output"), form: form(mixed(["key", "output"])) },
  { name: "low rank, expanded", given: laser(...MATRICES), form: form({ all: "pair", ...expanded }) },
];

for (const { name, given, form: blockForm, grouped: isGrouped, expands = false, sink = false, widths } of CASES) {
  for (const biased of [true, false]) {
    Deno.test(`foldFactors: ${name}${biased ? "" : ", no biases"} equals the dense reconstruction`, async () => {
      using ops = await createCpuOps();
      const random = randomWeights(SIZES, 77);
      const weights = isGrouped ? grouped(random) : random;
      const all = biased ? allBiases(500) : {};
      const biases = isGrouped && biased
        ? {
          ...all,
          key: Float32Array.from(all.key!, (_, i) => all.key![Math.floor(i / 12) * 12 + i % 6]!),
          value: Float32Array.from(all.value!, (_, i) => all.value![Math.floor(i / 12) * 12 + i % 6]!),
        }
        : all;
      const { factors } = await decomposeLayer(weights, options(given), ops);
      const slots = slotsOf(blockForm, { expands, sink });
      const folded = foldFactors(factors, biases, weights, blockForm, slots);
      const x = Mat.of(randomArray(TOKENS * SIZES.hiddenSize, 9), SIZES.hiddenSize);
      const dense = runDense(x, await reconstruct(factors, weights), biases, sink);
      const got = runFolded(x, { folded, form: blockForm, biases, sizes: weights, sink });
      assertEquals(got.data.length, dense.data.length);
      const scale = Math.max(...dense.data.map(Math.abs));
      for (let i = 0; i < got.data.length; i++) {
        assertAlmostEquals(got.data[i]!, dense.data[i]!, 3e-6 * scale, `entry ${i}`);
      }
      if (widths?.contexts !== undefined) {
        assertEquals(folded.get("slot.value.b")!.shape[1], blockForm.keyValueHeads * widths.contexts);
      }
      // without a query bias the query's own subspace is enough
      if (widths?.scores !== undefined) {
        const needed = biased || !name.includes("query only") ? widths.scores : 3;
        assertEquals(folded.get("slot.query.b")!.shape[1], 4 * needed);
      }
    });
  }
}

Deno.test("foldFactors refuses a slot whose fixed sizes don't fit", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights(SIZES, 1);
  const { factors } = await decomposeLayer(weights, options(tucker([7, 3, 2])), ops);
  const slot: FactorSlot = { layer: 0, role: "down", name: "u1", shape: [13, "r1"] };
  const error = assertThrows(() => foldFactors(factors, {}, weights, form({}), [slot]), RangeError);
  assert(error.message.includes("[12,7]") && error.message.includes("[13,r1]"), error.message);
});
