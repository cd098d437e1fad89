/**
 * How much a device does at once.
 *
 * @module
 */

/** What a device lets one do at once; larger work is cut to fit. */
export interface GpuLimits {
  /** Bytes that one binding of a storage buffer may cover. */
  readonly bindingBytes: number;
  /** Bytes of one buffer. */
  readonly bufferBytes: number;
  /** Workgroups along one dimension of a dispatch. */
  readonly workgroupsPerDimension: number;
  /** Workgroups of 256 that keep the device busy; a sum is cut into parts until there are as many. WebGPU doesn't tell it. */
  readonly parallelWorkgroups: number;
}
