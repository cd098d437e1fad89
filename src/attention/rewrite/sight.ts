/**
 * Which keys the tokens of a call see by their places, from the sizes of its scores. Sites whose operators take operands of the same
 * sizes share that.
 *
 * @module
 */
import { isJoint } from "./fused_cache.ts";
import type { SiteWriter } from "./site_writer.ts";
import { Steps } from "./steps.ts";

/** Sizes of one site's scores [B, H, T, S], and tests on the places of its keys. */
export class Sight {
  readonly steps: Steps;
  readonly #at: SiteWriter;
  readonly #scores: string;
  readonly #sizes: string;

  constructor(at: SiteWriter, scores: string) {
    this.#at = at;
    this.#scores = scores;
    this.steps = new Steps(at);
    const { node, past } = at.site.fused!;
    const sized = [node.input[0]!, node.input[1]!, ...past.key === undefined ? [] : [past.key]];
    this.#sizes = at.tracer.runs.map((run) => sized.map((name) => `[${run.value(at.graph, name).shape}]`)).join(" ");
  }

  /** A value that is the same for all sites of these sizes. */
  shared(name: string, make: () => string): string {
    return this.#at.shared(`${name} where sizes are ${this.#sizes}`, make);
  }

  /** One of the sizes B, H, T and S: [1]. */
  size(axis: 0 | 1 | 2 | 3): string {
    return this.shared(`size ${axis}`, () => this.#at.size(this.#scores, axis));
  }

  /** Whether each key stands below the ends [..., 1] of what is seen: [..., S]. */
  below(ends: string): string {
    const keys = this.shared("keys", () => this.steps.range(this.size(3)));
    return this.steps.node("Less", [keys, ends], "seen");
  }

  /** Where what tokens see ends that see all up to themselves behind the operator's past: [T, 1]. */
  ends(): string {
    return this.shared("ends", () => {
      const fused = this.#at.site.fused!;
      const past = fused.past.key;
      const next = this.next();
      const behind = past === undefined
        ? next
        : this.steps.node("Add", [next, this.#at.size(past, isJoint(fused) ? 3 : 2)], "seen.end");
      return this.#at.reshape(behind, [-1, 1], { label: "seen.ends" });
    });
  }

  /** The same where the last token stands at the last of the keys that count, of which each row has `counted` [B]: [B, 1, T, 1]. */
  countedEnds(counted: string): string {
    const rows = this.#at.reshape(counted, [-1, 1], { label: "counted.rows" });
    const before = this.steps.node("Sub", [rows, this.size(2)], "counted.before");
    const ends = this.steps.node("Add", [before, this.next()], "seen.end");
    return this.#at.reshape(ends, [0, 1, -1, 1], { label: "seen.ends" });
  }

  /** 1, 2, … up to T. */
  next(): string {
    return this.shared(
      "next",
      () => this.steps.node("Add", [this.steps.range(this.size(2)), this.#at.writer.integers([1])], "seen.next"),
    );
  }
}

/** 0 where keys are seen, and another number where they aren't. */
export function hiding(at: SiteWriter, visible: string, hidden: number): string {
  const [shown, other] = [0, hidden].map((value) => at.writer.scalar(value, at.elementType)) as [string, string];
  return at.node("Where", [visible, shown, other], { label: "mask" });
}
