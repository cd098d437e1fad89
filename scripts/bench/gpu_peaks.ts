/**
 * Peak rates of known devices, which the benchmark's products are measured against.
 *
 * @module
 */

/** What a device could do at most. */
export interface Peak {
  /** float32 multiply-adds outside tensor cores, two operations each, in 10¹² a second. */
  readonly tflops: number;
  /** Where the figure is from. */
  readonly source: string;
}

/** float32 TFLOPS (not of tensor cores) by what a driver calls the device; the first that matches counts. */
const PEAKS: readonly (readonly [pattern: RegExp, tflops: number])[] = [
  [/H200 NVL/, 60.0],
  [/H200/, 66.9],
  [/H100 PCIe/, 51.2],
  [/H100 NVL/, 60.0],
  [/H100/, 66.9],
  [/A100/, 19.5],
  [/A40\b/, 37.4],
  [/A30\b/, 10.3],
  [/A10\b/, 31.2],
  [/L40S/, 91.6],
  [/L40\b/, 90.5],
  [/L4\b/, 30.3],
  [/V100-PCIE/, 14.0],
  [/V100/, 15.7],
  [/T4\b/, 8.1],
  [/RTX 5090/, 104.8],
  [/RTX 4090/, 82.6],
  [/RTX 4080 SUPER/, 52.2],
  [/RTX 4080/, 48.7],
  [/RTX 3090 Ti/, 40.0],
  [/RTX 3090/, 35.6],
  [/MI300X/, 163.4],
  [/MI210/, 22.6],
  [/Apple M1 Max/, 10.4],
  [/Apple M1$/, 2.6],
  [/Apple M2 Max/, 13.6],
  [/Apple M2$/, 3.6],
];

/**
 * The peak of a device: what the user says it is, else the data sheet's; undefined for a device that isn't in the list.
 *
 * @param adapter its name, as the adapter gives it
 */
export function peakOf(adapter: string, given?: number): Peak | undefined {
  if (given !== undefined) return { tflops: given, source: "--peak-tflops" };
  const tflops = PEAKS.find(([pattern]) => pattern.test(adapter))?.[1];
  return tflops === undefined ? undefined : { tflops, source: "the data sheet's, without tensor cores" };
}
