/**
 * Small computations with the lengths and positions that a call has.
 *
 * @module
 */
import type { AttributeValue } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Writes them for one site, under its labels. */
export class Steps {
  constructor(private readonly at: SiteWriter) {}

  node(
    opType: string,
    inputs: readonly string[],
    label: string,
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): string {
    return this.at.node(opType, inputs, { label, attributes });
  }

  cast(value: string, to: number): string {
    return this.node("Cast", [value], "cast", { to: BigInt(to) });
  }

  int64(value: string): string {
    return this.cast(value, DataType.INT64);
  }

  /** 0, 1, … up to a size [1], without it. */
  range(size: string): string {
    const [start, step] = [0, 1].map((value) => this.at.writer.integer(value)) as [string, string];
    return this.node("Range", [start, this.node("Squeeze", [size], "scalar"), step], "range");
  }

  smaller(a: string, b: string, label: string): string {
    return this.node("Where", [this.node("Less", [a, b], "less"), a, b], label);
  }
}
