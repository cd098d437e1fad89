/**
 * Where the new tokens of a com.microsoft.GroupQueryAttention stand in its cache, and which positions they see, from the lengths that
 * the operator is told:
 *
 *     before = 0 in the first call (as many tokens as positions), else length − T         for each row of the batch
 *     token t stands at before + t, and sees the e positions below min(before + t + 1, length), or the last ones of a window
 *
 * A past may be longer than its rows (a buffer of the largest length, or rows padded on the right); it is given out as long as it
 * came, or as long as the longest row. Scores may be taken with all of that, or with the positions that some row has. Blocks with the
 * same lengths share all of it.
 *
 * @module
 */
import { DataType } from "../../onnx/tensor.ts";
import type { GroupQuery } from "../group_query.ts";
import type { SiteWriter } from "./site_writer.ts";
import { Steps } from "./steps.ts";

/** What `placesOf` writes. */
export interface Places {
  /** Positions of the new tokens in the cache, [B, T]. */
  readonly positions: string;
  /** Positions by which queries and keys are rotated, [B, T]. */
  readonly rotation: string;
  /** Positions of the cache that is given out, [1]. */
  readonly size: string;
  /** Whether the new tokens follow a past that is full in every row; undefined where there is no past. */
  readonly follows: string | undefined;
  /** Positions that the scores are taken with, [1]: `size`, or those that are in use. */
  readonly seen: string;
  /** What is added to the scores, [B, 1 or H, T or 1, seen]. */
  readonly mask: string;
}

/** What places are worked out from besides the operator. */
export interface PlaceOptions {
  /** What the tokens come in, [B, T, ·]. */
  readonly stream: string;
  /** Past keys, or what stands for them; undefined where there are none. */
  readonly past: string | undefined;
  /** Whether scores are taken with the positions in use only, of a past that may be longer. */
  readonly used: boolean;
}

/** Writes the places of a site's tokens, unless another site with the same lengths has done so. */
export function placesOf(
  at: SiteWriter,
  operator: GroupQuery,
  { stream, past, used }: PlaceOptions,
): Places {
  const sizes = at.tracer.runs.map((run) => {
    const [batch, tokens] = run.value(at.graph, stream).shape!;
    return [batch, tokens, past && run.value(at.graph, past).shape![2]];
  });
  const key = `${operator.lengths} ${operator.total} ${past === undefined} ${sizes.join(" ")}`;
  const shared = (name: string, make: () => string): string => at.shared(`${name} of ${key}`, make);
  const steps = new Steps(at);
  const zero = at.writer.integers([0]);
  const one = at.writer.integers([1]);

  const tokens = shared("tokens", () => at.size(stream, 1));
  const total = shared("total", () => at.reshape(steps.int64(operator.total), [-1], { label: "total" }));
  const lengths = shared("lengths", () => {
    const last = at.reshape(steps.int64(operator.lengths), [-1, 1], { label: "lengths.last" });
    return steps.node("Add", [last, one], "lengths");
  });
  const isFirst = (): string => shared("first", () => steps.node("Equal", [total, tokens], "first"));
  const before = shared("before", () => {
    const known = steps.node("Sub", [lengths, past === undefined ? lengths : tokens], "before.known");
    return past === undefined ? known : steps.node("Where", [isFirst(), zero, known], "before");
  });
  const positions = shared("positions", () => steps.node("Add", [before, steps.range(tokens)], "positions"));
  const pastSize = past === undefined ? undefined : shared("past.size", () => at.size(past, 2));
  const size = pastSize === undefined
    ? tokens
    : shared("size", () =>
      steps.node("Where", [steps.node("Less", [total, pastSize], "buffered"), pastSize, total], "size"));
  const follows = pastSize === undefined ? undefined : shared("follows", () => {
    const full = steps.node("Equal", [before, pastSize], "rows.full");
    const all = steps.node("ReduceMin", [steps.cast(full, DataType.INT32)], "rows.all", { keepdims: 0n });
    const next = steps.node("Equal", [total, steps.node("Add", [pastSize, tokens], "next")], "total.next");
    return steps.node("And", [steps.cast(all, DataType.BOOL), next], "follows");
  });

  const given = operator.rotary?.positions;
  // In the first call the operator reads one position, and counts on from there.
  const rotation = given === undefined ? positions : shared(`rotation by ${given}`, () => {
    const start = at.node("Slice", [at.reshape(given, [-1], { label: "rotation.given" }), zero, one], {
      label: "rotation.start",
    });
    const counted = steps.node(
      "Add",
      [start, steps.node("Sub", [positions, before], "rotation.steps")],
      "rotation.first",
    );
    return steps.node("Where", [isFirst(), counted, given], "rotation");
  });

  const { causal, window, bias } = operator;
  const seen = used && past !== undefined ? total : size;
  const mask = shared(`mask ${seen} ${causal} ${window} ${bias} ${at.elementType}`, () => {
    const next = (): string => steps.node("Add", [positions, one], "positions.next");
    const end = causal ? steps.smaller(next(), lengths, "seen.end") : lengths;
    const ends = at.reshape(end, [0, 1, -1, 1], { label: "seen.ends" });
    const keys = steps.range(seen);
    const below = steps.node("Less", [keys, ends], "seen.below");
    const start = (by: number): string => steps.node("Sub", [ends, at.writer.integers([by])], "seen.start");
    const outside = (by: number): string => steps.node("Less", [keys, start(by)], "seen.outside");
    const visible = window === undefined
      ? below
      : steps.node("And", [below, steps.node("Not", [outside(window)], "seen.inside")], "seen");
    const [shown, hidden] = [0, -Infinity].map((value) => at.writer.scalar(value, at.elementType)) as [string, string];
    const hiding = steps.node("Where", [visible, shown, hidden], "mask");
    if (bias === undefined) return hiding;
    const wide = seen === total ? bias : widened(at, bias, { from: total, to: seen });
    return steps.node("Add", [hiding, wide], "mask.biased");
  });
  return { positions, rotation, size, follows, seen, mask };
}

/** A bias of `from` positions with zeros up to `to`. */
function widened(
  at: SiteWriter,
  bias: string,
  { from, to }: { readonly from: string; readonly to: string },
): string {
  return padded(at, bias, { axis: 3, by: at.node("Sub", [to, from], { label: "bias.missing" }) });
}

/** A value of four dimensions with zeros behind one of them, as many as `by` [1] says. */
export function padded(
  at: SiteWriter,
  value: string,
  { axis, by }: { readonly axis: number; readonly by: string },
): string {
  const parts = [at.writer.integers(new Array<number>(4 + axis).fill(0)), by];
  if (axis < 3) parts.push(at.writer.integers(new Array<number>(3 - axis).fill(0)));
  const pads = at.node("Concat", parts, { label: "pads", attributes: { axis: 0n } });
  return at.node("Pad", [value, pads], { label: "padded" });
}
