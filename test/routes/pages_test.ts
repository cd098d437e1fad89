import { assert, assertEquals, assertMatch } from "@std/assert/mod.js";
import { serve } from "../support/http.ts";

const { send } = serve();

/** Addresses that a file refers to: attributes of HTML, imports of modules, `url()` of styles. */
function addresses(text: string): string[] {
  return [...text.matchAll(/(?:href|src)="([^"#]+)"|from "([^"]+)"|url\(([^)]+)\)|fetch\("([^"]+)"/g)]
    .map((match) => (match[1] ?? match[2] ?? match[3] ?? match[4])!);
}

Deno.test("the pages need nothing from elsewhere, and all that they name is there", async () => {
  const seen = new Set<string>();
  const queue = ["/", "/docs"];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const response = await send("GET", path);
    assertEquals(response.status, 200, path);
    const type = response.headers.get("content-type")!;
    const text = await response.text();
    if (!/html|javascript|css/.test(type)) continue;
    const outside = text.match(/(?:https?:)?\/\/(?!www\.w3\.org\/2000\/svg)[a-z0-9.-]+\.[a-z]{2,}/gi) ?? [];
    assertEquals(outside, [], `${path} names other hosts`);
    queue.push(...addresses(text).map((address) => new URL(address, `http://localhost${path}`).pathname));
  }
  assert(seen.size > 14, `${seen.size} files only`);
});

Deno.test("every id that the scripts use is in their page", async () => {
  const read = async (path: string): Promise<string> => (await send("GET", path)).text();
  const pages: [string, string[]][] = [
    ["/", ["ask", "generations", "jobs", "layers", "main", "sliders"]],
    ["/docs", ["docs"]],
  ];
  for (const [page, modules] of pages) {
    const html = await read(page);
    const ids = new Set([...html.matchAll(/\bid="([^"]+)"/g)].map((match) => match[1]));
    for (const module of modules) {
      for (const match of (await read(`/assets/${module}.js`)).matchAll(/byId\("([^"]+)"\)/g)) {
        assert(ids.has(match[1]), `${module}.js uses #${match[1]}, which ${page} doesn't have`);
      }
    }
  }
});

Deno.test("every field of the pages has a name for screen readers", async () => {
  for (const page of ["/", "/docs"]) {
    const html = await (await send("GET", page)).text();
    assertMatch(html, /<html lang="en">/);
    const labelled = new Set([...html.matchAll(/<label for="([^"]+)"/g)].map((match) => match[1]));
    for (const match of html.matchAll(/<(input|textarea|select)\b[^>]*>/g)) {
      const id = match[0].match(/\bid="([^"]+)"/)?.[1];
      const inLabel =
        html.slice(0, match.index).lastIndexOf("<label") > html.slice(0, match.index).lastIndexOf("</label>");
      assert(inLabel || (id !== undefined && labelled.has(id)), `${page}: ${match[0]} has no label`);
    }
  }
});

Deno.test("files have their types and can be asked for again cheaply", async () => {
  const types: [string, string][] = [["style.css", "text/css"], ["main.js", "text/javascript"], [
    "icon.svg",
    "image/svg+xml",
  ]];
  for (const [file, type] of types) {
    const response = await send("GET", `/assets/${file}`);
    assertEquals(response.headers.get("content-type"), `${type}; charset=utf-8`);
    await response.body?.cancel();
    const again = await send("GET", `/assets/${file}`, { headers: { "if-none-match": response.headers.get("etag")! } });
    assertEquals(again.status, 304);
  }
});
