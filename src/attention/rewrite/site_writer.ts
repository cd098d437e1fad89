/**
 * Helpers to write the new nodes of one site: projections through factors, head splits, scales.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { type AttributeValue, type GraphProto, makeNode } from "../../onnx/node.ts";
import type { HeadView } from "../heads.ts";
import type { KeyRotation } from "../rotation.ts";
import { PLAIN } from "../rows.ts";
import type { Site } from "../site.ts";
import type { Tracer } from "../trace/tracer.ts";
import type { FactorRole, FactorSlot, ProjectionForm } from "../types.ts";
import { inBatches } from "./batches.ts";
import type { PackedFactors } from "./packed.ts";
import type { ModelWriter } from "./writer.ts";

/** What a node is given besides its operator and inputs. */
interface NodeOptions {
  readonly label: string;
  /** Existing value that the node takes over. */
  readonly output?: string | undefined;
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

/** A factor of a block and the value that holds it; undefined where it is part of the packed factors. */
export interface Factor {
  readonly slot: FactorSlot;
  readonly value: string | undefined;
}

/** What a site does to keys that are made from z. */
export interface RotatedKeys {
  readonly rotation: KeyRotation;
  /** Whether its cache holds the rotation's coefficients: the first one that is rotated so keeps them for all. */
  readonly keepsCoefficients: boolean;
}

/** The projections that may come from one product. */
const PACKED = ["query", "key", "value"] as const;

/** Writes into the graph of one site. */
export class SiteWriter {
  readonly site: Site;
  readonly tracer: Tracer;
  readonly writer: ModelWriter;
  readonly #label: string;
  readonly #factors: ReadonlyMap<FactorRole, Factor>;
  readonly #packed: PackedFactors | undefined;
  readonly #rotated: RotatedKeys | undefined;
  readonly #made = new Map<string, string>();

  constructor(options: {
    readonly writer: ModelWriter;
    readonly tracer: Tracer;
    readonly site: Site;
    readonly label: string;
    readonly factors: readonly Factor[];
    readonly packed?: PackedFactors | undefined;
    readonly rotated?: RotatedKeys | undefined;
  }) {
    this.writer = options.writer;
    this.tracer = options.tracer;
    this.site = options.site;
    this.#label = options.label;
    this.#packed = options.packed;
    this.#rotated = options.rotated;
    this.#factors = new Map(options.factors.map((factor) => [factor.slot.role, factor]));
  }

  /** The graph that holds the site. */
  get graph(): Graph {
    return this.site.graph;
  }

  /** Element type in which the block computes. */
  get elementType(): number {
    return this.site.query.projection.elementType;
  }

  /** What is done to keys that are made from z. */
  get rotated(): RotatedKeys {
    if (this.#rotated === undefined) throw new TypeError("the way of the keys isn't known");
    return this.#rotated;
  }

  /** Whether the block's form has this factor. */
  has(role: FactorRole): boolean {
    return this.#factors.has(role);
  }

  /** A factor that the form has. */
  slot(role: FactorRole): FactorSlot {
    return this.#factor(role).slot;
  }

  /** The value that holds a factor, in the block's element type. */
  factor(role: FactorRole): string {
    const { value } = this.#factor(role);
    if (value === undefined) throw new TypeError(`the factor ${role} is part of the packed ones`);
    return value;
  }

  #factor(role: FactorRole): Factor {
    const factor = this.#factors.get(role);
    if (factor === undefined) throw new TypeError(`the form has no factor ${role}`);
    return factor;
  }

  /** Adds a node with one output and returns the output's name. */
  node(opType: string, inputs: readonly string[], options: NodeOptions): string {
    return this.writer.node(this.graph, opType, { ...options, inputs, label: `${this.#label}/${options.label}` });
  }

  /** a @ b. */
  matmul(a: string, b: string, options: NodeOptions): string {
    return this.node("MatMul", [a, b], options);
  }

  /** Reshape to constant sizes: 0 keeps the input's size in that place, −1 is the rest. */
  reshape(input: string, shape: readonly number[], options: NodeOptions): string {
    return this.node("Reshape", [input, this.writer.integers(shape)], options);
  }

  /** Transpose by a permutation. */
  transpose(input: string, perm: readonly number[], label: string): string {
    return this.node("Transpose", [input], { label, attributes: { perm: perm.map(BigInt) } });
  }

  /** Multiplies by a constant, unless that is 1. */
  scaled(input: string, scale: number, label: string): string {
    return scale === 1
      ? input
      : this.node("Mul", [input, this.writer.scalar(Math.fround(scale), this.elementType)], { label });
  }

  /** Query, key or value through its factors: [batch, positions, heads · ρ], or [..., heads · ρ] of a given input. */
  project(name: "query" | "key" | "value", form: ProjectionForm, input?: string): string {
    const narrow = this.narrow(name, form, input);
    if (this.#packed !== undefined) return this.#packedPart(name, narrow, this.#packed);
    return this.matmul(narrow, this.factor(`${name}.b`), { label: `${name}.b` });
  }

  /** The query through its factors, with its bias where that is a factor. */
  projectQuery(form: ProjectionForm): string {
    return this.#biased("query", form);
  }

  /** The value through its factors, with its bias where that is a factor. */
  projectValue(form: ProjectionForm): string {
    return this.#biased("value", form);
  }

  #biased(name: "query" | "value", form: ProjectionForm): string {
    const projected = this.project(name, form);
    const role = `${name}.bias` as const;
    if (!this.has(role) || this.#packed !== undefined) return projected;
    return this.node("Add", [projected, this.factor(role)], { label: role });
  }

  /** Query, key or value, cut from the product of z with all their factors; query and value have their biases already. */
  #packedPart(name: (typeof PACKED)[number], z: string, { matrix, bias, widths, opset }: PackedFactors): string {
    const output = (part: string): string => `${part} of ${z}`;
    return this.once(output(name), () => {
      const product = this.matmul(z, matrix, { label: "packed" });
      const biased = bias === undefined ? product : this.node("Add", [product, bias], { label: "packed.bias" });
      const parts = PACKED.map((part) => this.writer.fresh(`${this.#label}/${part}.b`));
      const inputs = opset < 13 ? [biased] : [biased, this.writer.integers(widths)];
      const sizes = opset < 13 ? { split: widths.map(BigInt) } : {};
      const node = { name: this.writer.fresh(`${this.#label}/packed.split`), attributes: { axis: -1n, ...sizes } };
      this.writer.put(this.graph, makeNode("Split", inputs, parts, node));
      PACKED.forEach((part, i) => this.#made.set(output(part), parts[i]!));
      return parts[PACKED.indexOf(name)]!;
    });
  }

  /**
   * What stands before the factor `b`: z of the shared or of an own first factor, [batch, positions, r1 or r], else the input;
   * [..., r1, r or d] of a given input.
   */
  narrow(name: "query" | "key" | "value", form: ProjectionForm, input?: string): string {
    const { projection, order = PLAIN } = this.site[name];
    if (input !== undefined) return this.#narrowed(name, form, input);
    return inBatches(this, this.#narrowed(name, form, projection.input), { order, like: projection.input });
  }

  #narrowed(name: "query" | "key" | "value", form: ProjectionForm, input: string): string {
    if (form === "shared") {
      return this.once(`down ${input}`, () => this.matmul(input, this.factor("down"), { label: "down" }));
    }
    if (form !== "pair") return input;
    const role = `${name}.a` as const;
    return this.once(`${role} ${input}`, () => this.matmul(input, this.factor(role), { label: role }));
  }

  /** A value that several parts of the site read, made when the first of them asks. */
  once(key: string, make: () => string): string {
    let value = this.#made.get(key);
    if (value === undefined) this.#made.set(key, value = make());
    return value;
  }

  /** A value that other sites of the graph read too: see `ModelWriter.shared`. */
  shared(key: string, make: () => string): string {
    return this.writer.shared(this.graph, key, make);
  }

  /** One of two ways to compute the same value, taken at run time. What both read must be made before. */
  choose(
    condition: string,
    { ifTrue, ifFalse }: { readonly ifTrue: () => string; readonly ifFalse: () => string },
    { label, output = this.writer.fresh(`${this.#label}/${label}`) }: Omit<NodeOptions, "attributes">,
  ): string {
    this.chooseAll(condition, { ifTrue: () => [ifTrue()], ifFalse: () => [ifFalse()] }, { label, outputs: [output] });
    return output;
  }

  /** `choose` for several values, all by the same way. */
  chooseAll(
    condition: string,
    ways: { readonly ifTrue: () => readonly string[]; readonly ifFalse: () => readonly string[] },
    { label, outputs }: { readonly label: string; readonly outputs: readonly string[] },
  ): void {
    const branch = (name: string, write: () => readonly string[]): GraphProto =>
      this.writer.branch(`${this.#label}/${label}.${name}`, this.elementType, write);
    const attributes = { then_branch: branch("then", ways.ifTrue), else_branch: branch("else", ways.ifFalse) };
    const name = this.writer.fresh(`${this.#label}/${label}`);
    this.writer.put(this.graph, makeNode("If", [condition], outputs, { name, attributes }));
  }

  /** One size of a value as a list of one number, at run time. */
  size(value: string, axis: number): string {
    const shape = this.node("Shape", [value], { label: "shape" });
    const [start, end] = [axis, axis + 1].map((at) => this.writer.integers([at]));
    return this.node("Slice", [shape, start!, end!], { label: "size" });
  }

  /** Heads of a view that have columns of their own. */
  groups(view: HeadView): number {
    return new Set(view.columns.filter((_, i) => i % view.headSize === 0)).size;
  }

  /** Number of dimensions of a value under the probe. */
  rank(name: string): number {
    return this.tracer.value(this.graph, name).shape!.length;
  }
}
