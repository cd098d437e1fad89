/**
 * What a kernel's record says.
 *
 * @module
 */

/** How a kernel uses a storage buffer. */
export type Access = "read" | "read-write";

/** One storage buffer of a kernel. */
export interface KernelBinding {
  /** Its name in the WGSL source. */
  readonly name: string;
  readonly access: Access;
}

/**
 * A kernel. Binding 0 is always the uniform `Params`; the storage buffers follow in the order of `bindings`.
 *
 * @typeParam P names of the parameters
 */
export interface Kernel<P extends string = string> {
  /** First part of every label of its pipelines. */
  readonly name: string;
  /** WGSL, whole. */
  readonly source: string;
  readonly entryPoint: string;
  readonly bindings: readonly KernelBinding[];
  /** Pipeline-overridable constants with the values that the WGSL gives them. */
  readonly overrides: Readonly<Record<string, number>>;
  /** Fields of `Params` in order, all u32; the fields of a nested struct are `field.member`. */
  readonly params: readonly P[];
  /** Number of workgroups for given parameters and overrides. */
  readonly workgroups: (params: Readonly<Record<P, number>>, overrides: Readonly<Record<string, number>>) => number;
}

/** Lets the parameter names be inferred from the list. */
export function kernel<const P extends string>(record: Kernel<P>): Kernel<P> {
  return record;
}

/** How many pieces of a size cover a count. */
export const tiles = (count: number, size: number): number => Math.ceil(count / size);
