/**
 * A model as the GPU's benchmarks see it: its sizes.
 *
 * @module
 */
import type { Ranks } from "../../src/tucker/types.ts";

/** A model whose layers are measured. */
export interface ModelShape {
  readonly name: string;
  /** d. */
  readonly hidden: number;
  /** H. */
  readonly heads: number;
  /** h. */
  readonly headSize: number;
  /** What its layers are decomposed at; the first choice is run for all layers too. */
  readonly ranks: readonly Ranks[];
  readonly layers: number;
}
