/**
 * The GPU benchmark: what it computes from times, what its page says, and that a run on software is marked as one.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { benchGpu } from "../../scripts/bench/gpu.ts";
import { peakOf } from "../../scripts/bench/gpu_peaks.ts";
import { type GpuBench, toMarkdown, toResults, writePage } from "../../scripts/bench/gpu_report.ts";
import { openDevice } from "../../src/gpu/device.ts";
import { skipGpu } from "./adapter.ts";

const MEASURED: GpuBench = {
  adapter: "NVIDIA L4",
  software: false,
  date: new Date("2026-03-04T05:06:07Z"),
  peak: { tflops: 40, source: "a test" },
  // 2·10¹² operations and 4·10¹⁰ bytes in 0.1 s: 20 TFLOPS, 400 GB/s
  products: [{
    name: "square product",
    storage: "float16",
    seconds: [0.3, 0.1, 0.05],
    flops: 2e12,
    bytes: 4e10,
    cpuSeconds: [1],
  }],
  times: [{ name: "layer", seconds: [0.02, 0.02], baseline: "CPU", baselineSeconds: [3, 1, 2], note: "float16" }],
};

function cells(page: string, name: string): string[] {
  const line = page.split("\n").find((line) => line.startsWith(`| ${name} `));
  if (line === undefined) throw new Error(`no row ${name} in\n${page}`);
  return line.split("|").slice(1, -1).map((cell) => cell.trim());
}

Deno.test("GPU benchmark: the page gives device, date, rates and shares of the peak", () => {
  const page = toMarkdown(MEASURED);
  assert(page.includes("on 2026-03-04."), page);
  assert(page.includes("Device: **NVIDIA L4**"), page);
  assert(page.includes("40 TFLOPS (a test)"), page);
  assert(!page.includes("software"), page);
  assertEquals(cells(page, "square product"), ["square product", "float16", "100", "20.0", "50.0%", "400"]);
  assertEquals(cells(page, "layer"), ["layer", "20.0", "CPU", "2000", "100", "float16"]);
  const unknown = toMarkdown({ ...MEASURED, peak: undefined, software: true });
  assertEquals(cells(unknown, "square product")[4], "");
  assert(unknown.includes("software adapter, not a GPU"), unknown);
});

Deno.test("GPU benchmark: lines for the terminal compare with the peak, else with the CPU", () => {
  const [product, layer] = toResults(MEASURED);
  assertEquals([product!.baseline, product!.seconds, product!.baselineSeconds], ["40 TFLOPS peak", 0.1, 0.05]);
  assertEquals(product!.ratio, 0.5);
  assertEquals([layer!.ratio, layer!.note], [100, "float16, NVIDIA L4"]);
  const [compared] = toResults({ ...MEASURED, peak: undefined });
  assertEquals([compared!.baseline, compared!.ratio], ["the CPU", 10]);
});

Deno.test("GPU benchmark: peaks are those of the data sheets, by the more exact name first", () => {
  const peaks: Record<string, number> = {
    "NVIDIA H100 80GB HBM3": 66.9,
    "NVIDIA H100 PCIe": 51.2,
    "NVIDIA H200": 66.9,
    "NVIDIA A100-SXM4-80GB": 19.5,
    "NVIDIA L40S": 91.6,
    "NVIDIA L4": 30.3,
    "Tesla T4": 8.1,
    "NVIDIA GeForce RTX 4090": 82.6,
  };
  for (const [adapter, tflops] of Object.entries(peaks)) assertEquals(peakOf(adapter)?.tflops, tflops, adapter);
  assertEquals(peakOf("llvmpipe (LLVM 15.0.6, 256 bits), software"), undefined);
  assertEquals(peakOf("NVIDIA L4", 12), { tflops: 12, source: "--peak-tflops" });
});

Deno.test("GPU benchmark: the page is written whole or not at all", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/docs/benchmarks.md`;
    await writePage("first", path);
    await writePage("second", path);
    assertEquals(await Deno.readTextFile(path), "second");
    await Deno.mkdir(`${folder}/docs/taken`);
    await assertRejects(() => writePage("third", `${folder}/docs/taken`));
    const names = [...Deno.readDirSync(`${folder}/docs`)].map(({ name }) => name).sort();
    assertEquals(names, ["benchmarks.md", "taken"], "nothing temporary is left");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test({ name: "GPU benchmark: a software adapter is measured under its own name", ignore: skipGpu }, async () => {
  const model = { name: "tiny", hidden: 16, heads: 2, headSize: 8, ranks: [[4, 2, 2]], layers: 2 } as const;
  const measured = await benchGpu({ software: true, sizes: { squares: [8], model, flops: 1, runs: 1 } });
  using device = await openDevice({ allowFallbackAdapter: true });
  assertEquals([measured.adapter, measured.software], [device.adapter, device.isFallback]);
  const results = toResults(measured);
  for (const { name, seconds, baselineSeconds, ratio } of results) {
    assert(seconds > 0 && baselineSeconds > 0 && Number.isFinite(ratio), `${name}: ${seconds}, ${baselineSeconds}`);
  }
  const page = toMarkdown(measured);
  assertEquals(page.includes("software adapter, not a GPU"), device.isFallback);
  for (
    const row of ["product 8×8×8", "hidden mode product [16,4,2,8] × 16×4", "all 2 tiny layers at (4,2,2), end to end"]
  ) cells(page, row);
  const layers = results.filter(({ name }) => name.startsWith("tiny layer 16×8×4×2 at (4,2,2), with"));
  const ways = ["float32", "float32", "float32, stored as float16", "float32, stored as float16", "float16"];
  assertEquals(layers.map(({ note }) => note.replace(/, \d+ sweeps.*/, "")), ways);
  const crossing = results.filter(({ name }) => name === "upload of a tiny layer").map(({ note }) =>
    note.split(/: | MiB/)
  );
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toPrecision(3);
  const [whole, half] = [mebibytes(4 * 16 * 64), mebibytes(2 * 16 * 64 + 4 * (3 * 16 + 16))];
  assertEquals(crossing.map(([way, bytes]) => [way, bytes]), [[ways[0], whole], [ways[2], whole], [ways[4], half]]);
});

Deno.test({ name: "GPU benchmark: without --software a software adapter is refused", ignore: skipGpu }, async () => {
  using device = await openDevice({ allowFallbackAdapter: true });
  if (!device.isFallback) return; // a real GPU would be measured, for minutes
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("../../scripts/bench/main.ts", import.meta.url).pathname, "--gpu"],
  }).output();
  assertEquals(code, 1);
  const text = new TextDecoder().decode(stderr);
  assert(/^bench: .*is software.*--software/m.test(text), text);
});
