/** The plot of `deno task spectrum --svg`: its parts, and that lines stand where their numbers say. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { errorCurve, spectrumPlot } from "../../src/cli/spectrum_plot.ts";
import { plotPage } from "../../src/cli/svg.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { oracleExports } from "../support/oracle.ts";

function pointsOf(svg: string): [number, number][][] {
  return [...svg.matchAll(/<polyline [^>]*points="([^"]*)"/g)].map(([, points]) =>
    points!.split(" ").map((point) => point.split(",").map(Number) as [number, number])
  );
}

Deno.test("lines, ticks and texts stand where the axes say, and text is escaped", () => {
  const svg = plotPage('a <b> & "c"', [{
    title: "panel",
    x: { label: "x", scale: "log", range: [1, 100], ticks: [1, 10, 100] },
    y: { label: "y", scale: "linear", range: [0, 2], ticks: [0, 2] },
    series: [{ name: "<1>", color: "hsl(1, 2%, 3%)", points: [[1, 0], [10, 1], [100, 2], [1000, NaN]] }],
  }], [{ name: "one", color: "hsl(1, 2%, 3%)" }]);
  const [[first, middle, last, outside]] = pointsOf(svg) as [[number, number][]];
  assertEquals([(first![0] + last![0]) / 2, (first![1] + last![1]) / 2], middle!);
  assert(first![1] > last![1] && first![0] < last![0], "y doesn't grow upwards, or x to the right");
  assertEquals(outside, [last![0], first![1]]); // outside the range: at its ends
  assertEquals(svg.match(/class="grid"/g)?.length, 5);
  assert(svg.includes("a &lt;b&gt; &amp; &quot;c&quot;") && svg.includes("&lt;1&gt;") && !svg.includes("<b>"));
  assert(svg.includes("prefers-color-scheme: dark"));
  assertEquals(
    svg.match(/<(svg|g|style|title|text|polyline)[ >]/g)?.length,
    svg.match(/<\/(svg|g|style|title|text|polyline)>/g)?.length,
  );
});

Deno.test("every layer has a line in every panel, inside the page, and errors rise with the ratio", async () => {
  await using opened = await openTestCompressor(oracleExports("bert")[0]!.path);
  const layers = await opened.compressor.spectrum({ layout: "heads", balance: false, layers: "all" });
  const some = await opened.compressor.spectrum({ layout: "heads", balance: false, layers: "1-2" });
  assertEquals(some.map(({ block }) => block.layer), [1, 2]);
  assertEquals(some[0]!.spectrum, layers[1]!.spectrum);
  const svg = spectrumPlot("bert", layers);
  const lines = pointsOf(svg);
  assertEquals(lines.length, 4 * layers.length);
  const [, width, height] = svg.match(/viewBox="0 0 (\d+) (\d+)"/)!.map(Number);
  for (const [x, y] of lines.flat()) assert(x >= 0 && x <= width! && y >= 0 && y <= height!, `${x},${y}`);
  assertEquals(lines.slice(0, 3).map((line) => line.length), [48, 48, 48]);
  assertEquals(lines.slice(6, 9).map((line) => line.length), [4, 4, 4]);
  for (const layer of layers) {
    const curve = errorCurve(layer);
    assert(curve.length > 10);
    for (const [i, [ratio, error]] of curve.entries()) {
      const [before, least] = curve[i - 1] ?? [0, 0];
      assert(ratio > before && error >= least && error <= 1, `error ${error} at ratio ${ratio}`);
    }
  }
});
