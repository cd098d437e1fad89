/**
 * Rewrites blocks to run on their factors instead of dense weights, exactly: design of TensorLLM (arXiv 2501.15674), where
 * all heads share one subspace, so that queries meet keys and probabilities meet values in r2 numbers per head.
 *
 * Reduced space, with x the block's input, per head i (the roles of `FactorRole`):
 *
 *     z = x down                      q̃ = z query.b + query.bias      k̃ = z key.b      ṽ = z value.b
 *     scores = scale · q̃ k̃ᵀ          (what follows up to the softmax's result P stays)
 *     y = (concat_i(P_i ṽ_i) output.a) up + output.bias
 *
 * Where rows of P may not sum to one (a sink, a threshold), ṽ = z value.b + value.bias instead of a constant in output.bias.
 *
 * As initializers, the factors of query, key and value are joined where one product can serve all three (`packed.ts`).
 *
 * @module
 */
import { TuckerdError } from "../../errors.ts";
import type { Graph } from "../../onnx/graph.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import { DataType } from "../../onnx/tensor.ts";
import { tensorInfo } from "../../onnx/value_info.ts";
import type { LocatedBlock } from "../describe.ts";
import { analyse, locatedBlock } from "../find.ts";
import { canBeLatent, coefficientKeepers, headSizesDiffer, makesKeys, slotsOf } from "../form.ts";
import { isGroupQuery } from "../group_query.ts";
import type { BlockForm, FactorRole, FactorSlot } from "../types.ts";
import { writeExpandedOutput, writeExpandedProjections, writeTwins } from "./expanded.ts";
import { writeFused, writeUngroupedOperator } from "./fused.ts";
import { writeGroupQuery } from "./group_query.ts";
import { writeLatentKeys, writeReducedQueryKey, writeReducedValueOutput } from "./reduced.ts";
import { addPackedFactors, packedRoles } from "./packed.ts";
import { runsPlain, writePlain } from "./plain.ts";
import { replaceShapeReaders } from "./shapes.ts";
import { type Factor, SiteWriter } from "./site_writer.ts";
import { type FactorNumbers, ModelWriter } from "./writer.ts";

/** Where a rewritten graph takes its factors from. */
export type FactorSource =
  | { readonly factors: "inputs" }
  | {
    readonly factors: "initializers";
    readonly tensors: (slot: FactorSlot) => FactorNumbers;
  };

/** A rewritten model and the factor tensors that it takes; as initializers, some of them may stand joined in one. */
export interface FactoredModel {
  readonly model: OnnxModel;
  readonly slots: readonly FactorSlot[];
}

/**
 * Rewrites the blocks named in `forms`; all other nodes stay. The given model is not changed, and its tensors are shared. As
 * graph inputs, factors have symbolic ranks, so that one session serves every rank.
 *
 * @throws RangeError if a layer doesn't exist; TuckerdError "unsupported" if a block can't run in the form asked for.
 */
export function rewriteFactored(
  model: OnnxModel,
  forms: ReadonlyMap<number, BlockForm>,
  source: FactorSource,
): FactoredModel {
  const analysis = analyse(model);
  const writer = new ModelWriter(analysis);
  const slots: FactorSlot[] = [];
  const opset = opsetOf(model);
  const keepers = coefficientKeepers(analysis.blocks, forms);
  for (const [layer, form] of [...forms].sort(([a], [b]) => a - b)) {
    const block = locatedBlock(analysis, layer);
    checkForm(block, form);
    const named = blockSlots(block, form).map((slot) => ({ ...slot, name: writer.fresh(slot.name) }));
    const type = block.sites[0].query.projection.elementType;
    const joined = source.factors === "initializers" ? packedRoles(block, form) : new Set<FactorRole>();
    const factors = named.map((slot): Factor =>
      joined.has(slot.role)
        ? { slot, value: undefined }
        : addFactor(writer, slot, { source, type, graph: analysis.graph })
    );
    const packed = source.factors === "initializers" && joined.size > 0
      ? addPackedFactors(writer, named, { type, opset, numbers: (slot) => numbersOf(slot, source) })
      : undefined;
    slots.push(...named);
    block.sites.forEach((site, i) => {
      const label = block.sites.length === 1 ? `tuckerd/layer${layer}` : `tuckerd/layer${layer}.${i}`;
      const rotation = block.rotations?.[i];
      const rotated = rotation && { rotation, keepsCoefficients: keepers.has(layer) };
      const at = new SiteWriter({ writer, tracer: analysis.tracer, site, label, factors, packed, rotated });
      writeSite(at, form);
      if (i === 0) writeTwins(at, form, block.twins);
    });
    analysis.tracer.forgetUnused();
  }
  analysis.tracer.forgetAll();
  return { model: writer.finish(model), slots };
}

function writeSite(at: SiteWriter, form: BlockForm): void {
  const reduced = form.queryKey === "reduced" || form.valueOutput === "reduced";
  const { fused, query } = at.site;
  const inside = fused !== undefined && query.projection.node === fused.node;
  const plain = fused !== undefined &&
    (isGroupQuery(fused.node) ? reduced || makesKeys(form) : runsPlain(at, fused, form));
  if (reduced || makesKeys(form)) replaceShapeReaders(at);
  if (fused !== undefined) {
    if (plain) (isGroupQuery(fused.node) ? writeGroupQuery : writePlain)(at, fused, form);
    else if (reduced || inside) writeFused(at, fused, form);
  } else {
    if (form.queryKey === "reduced") writeReducedQueryKey(at, form);
    else if (makesKeys(form)) writeLatentKeys(at, form);
    if (form.valueOutput === "reduced") writeReducedValueOutput(at, form);
  }
  const grouped = at.groups(at.site.key) < form.keyValueHeads;
  if (fused !== undefined && grouped && !reduced && !plain) writeUngroupedOperator(at, fused, form);
  if (!inside) writeExpandedProjections(at, form);
  if (form.valueOutput === "expanded" && form.output !== "kept") writeExpandedOutput(at, form);
}

function blockSlots(block: LocatedBlock, form: BlockForm): FactorSlot[] {
  const [{ query, value, output }] = block.sites;
  const inside = block.valueBiasInside === true;
  return slotsOf(block, form, {
    query: query.bias !== undefined,
    value: inside,
    output: output.bias !== undefined || (value.bias !== undefined && !inside),
  });
}

/**
 * Adds a factor to the model. Inputs are float32 whatever the block computes in, so that
 * callers feed one type.
 */
function addFactor(
  writer: ModelWriter,
  slot: FactorSlot,
  { source, type, graph }: { readonly source: FactorSource; readonly type: number; readonly graph: Graph },
): Factor {
  if (source.factors === "inputs") {
    writer.input(tensorInfo(slot.name, DataType.FLOAT, slot.shape));
    if (type === DataType.FLOAT) return { slot, value: slot.name };
    const attributes = { to: BigInt(type) };
    return { slot, value: writer.node(graph, "Cast", { inputs: [slot.name], label: `${slot.name}.cast`, attributes }) };
  }
  const { shape, data } = numbersOf(slot, source);
  writer.floats({ name: slot.name, type }, { shape, data });
  return { slot, value: slot.name };
}

/** The numbers of a factor that becomes an initializer. */
function numbersOf(slot: FactorSlot, { tensors }: Extract<FactorSource, { factors: "initializers" }>): FactorNumbers {
  const { shape, data } = tensors(slot);
  const fits = shape.length === slot.shape.length &&
    slot.shape.every((size, i) => typeof size !== "number" || size === shape[i]);
  if (!fits) throw new RangeError(`factor ${slot.name} needs shape [${slot.shape}], got [${shape}]`);
  return { shape, data };
}

/** Version of the standard operators that a model uses. */
function opsetOf({ proto }: OnnxModel): number {
  const standard = proto.opsetImport.find(({ domain }) => domain === "" || domain === "ai.onnx");
  return Number(standard?.version ?? 1n);
}

function checkForm(block: LocatedBlock, form: BlockForm): void {
  const refuse = (what: string): never => {
    throw new TuckerdError(
      "unsupported",
      `layer ${block.layer} (${block.name}) can't run in the form asked for: ${what}`,
    );
  };
  const pairs: readonly [BlockForm["queryKey"], readonly FactorRole[], string | undefined][] = [
    [form.queryKey, ["query.b", "key.b"], block.queryKeyExpandedBecause],
    [form.valueOutput, ["value.b", "output.a"], block.valueOutputExpandedBecause],
  ];
  for (const [space, roles, because] of pairs) {
    if (space === "reduced" && because !== undefined) refuse(because);
    for (const role of roles) {
      const matrix = role.split(".")[0] as "query" | "key" | "value" | "output";
      if (space === "reduced" && form[matrix] === "kept") refuse(`${matrix} is kept, but its space is reduced`);
    }
  }
  if (block.oneHeadSize && headSizesDiffer(form)) refuse("its keys and values must have heads of one size");
  if (block.oneHeadSize && form.latent?.length === 1) refuse("its keys and values are one tensor in the cache");
  for (const name of form.latent ?? []) {
    if (block.noLatentCacheBecause !== undefined) refuse(`no latent cache: ${block.noLatentCacheBecause}`);
    if (!canBeLatent(block, form, name)) {
      refuse(
        `the ${name} cache can be latent only where ${name} comes from two factors, and runs reduced without a bias of its own ` +
          "or is a key whose rotation is known",
      );
    }
  }
  if (form.keyValueHeads !== block.heads && form.keyValueHeads !== block.keyValueHeads) {
    refuse(`${form.keyValueHeads} key and value heads are neither ${block.keyValueHeads} nor ${block.heads}`);
  }
}
