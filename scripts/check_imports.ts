/**
 * House rule: data flows one way. Each room may import only the rooms before it (README, "How it is built"), and no files import each other
 * in a circle, types included. Run by `deno task ok`; prints every import that goes the wrong way, and every circle, and exits 1.
 *
 * @module
 */
import { print } from "../src/log.ts";

const base = ["src/errors.ts", "src/log.ts", "src/config.ts", "src/config", "src/machine.ts", "src/release.ts"];
const rooms: Record<string, string[]> = {
  "kernels": [],
  "src/errors.ts": base,
  "src/log.ts": base,
  "src/config.ts": base,
  "src/config": base,
  "src/machine.ts": base,
  "src/release.ts": base,
  "src/no_telemetry.ts": [],
  "src/onnx_runtime.ts": ["src/no_telemetry.ts"],
  "src/onnx": base,
  "src/hub": base,
  "src/attention": [...base, "src/onnx"],
  "src/linalg": [...base, "src/onnx_runtime.ts"],
  "src/gpu": [...base, "kernels"],
  "src/tucker": [...base, "src/linalg", "src/attention/types.ts"],
  "src/compress": [...base, "src/onnx", "src/attention", "src/linalg", "src/tucker"],
  "src/runtime": [...base, "src/onnx", "src/onnx_runtime.ts", "src/compress/artifact.ts"],
  "src/qa": [...base, "src/runtime"],
  "src/eval": [...base, "src/qa", "src/compress", "src/runtime", "src/tucker/types.ts"],
  "src/serve": [...base, "src/attention/types.ts", "src/compress", "src/runtime", "src/qa", "src/tucker/types.ts"],
  "routes": [...base, "src/serve", "src/qa", "src/compress", "src/runtime", "src/tucker/types.ts"],
};
/** Single files that may import one room more: the seam where that room is plugged in. */
const seams: Record<string, string[]> = {
  "src/tucker/gpu_ops.ts": ["src/gpu", "kernels"],
};
/** npm packages with one user only, scripts apart. */
const packageUsers: Record<string, string[]> = {
  "onnxruntime-node": ["src/onnx_runtime.ts"],
  "@bufbuild/protobuf": ["src/onnx"],
  "ml-matrix": ["src/linalg"],
  "@huggingface/hub": ["src/hub"],
  "hono": ["routes", "src/main.ts"],
};

const root = new URL("..", import.meta.url).pathname;
const faults: string[] = [];
/** The files of the project that each file imports. */
const imports = new Map<string, string[]>();

async function* sources(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(`${root}${folder}`)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sources(path);
    else if (path.endsWith(".ts")) yield path;
  }
}

/** The room a path belongs to: the longest key of `rooms` that it starts with. */
function roomOf(path: string): string | undefined {
  return Object.keys(rooms).filter((room) => path === room || path.startsWith(`${room}/`))
    .sort((a, b) => b.length - a.length)[0];
}

function check(path: string, specifier: string): void {
  const room = roomOf(path);
  if (!specifier.startsWith(".")) {
    for (const [name, users] of Object.entries(packageUsers)) {
      const used = specifier === name || specifier.startsWith(`${name}/`);
      if (used && !path.startsWith("scripts/") && !users.some((user) => path === user || path.startsWith(`${user}/`))) {
        faults.push(`${path}: imports ${specifier}, which only ${users.join(", ")} may`);
      }
    }
    return;
  }
  const target = new URL(specifier, `file:///${path}`).pathname.slice(1);
  imports.set(path, [...imports.get(path) ?? [], target]);
  if (room === undefined) return; // src/main.ts and its like compose everything
  if (roomOf(target) === room) return;
  const allowed = [...rooms[room] ?? [], ...seams[path] ?? []];
  if (!allowed.some((entry) => target === entry || target.startsWith(`${entry}/`))) {
    faults.push(`${path}: ${room} may not import ${target}`);
  }
}

/** Circles of imports, each once: depth first, a circle being a way back to a file that is being walked from. */
function circles(): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const walk = (path: string): void => {
    const start = way.indexOf(path);
    if (start >= 0) found.push(`imports in a circle: ${[...way.slice(start), path].join(" → ")}`);
    if (start >= 0 || done.has(path)) return;
    way.push(path);
    for (const target of imports.get(path) ?? []) walk(target);
    way.pop();
    done.add(path);
  };
  for (const path of imports.keys()) walk(path);
  return found;
}

for (const folder of ["src", "kernels", "routes", "scripts"]) {
  for await (const path of sources(folder)) {
    const text = await Deno.readTextFile(root + path);
    for (
      const match of text.matchAll(
        /^\s*(?:import|export)\s[^"';]*?from\s+"([^"]+)"|^\s*import\s+"([^"]+)"|\bimport\(\s*"([^"]+)"/gm,
      )
    ) {
      check(path, (match[1] ?? match[2] ?? match[3])!);
    }
    if (path !== "src/log.ts" && /\bconsole\./.test(text)) faults.push(`${path}: only src/log.ts uses the console`);
  }
}
faults.push(...circles());
if (faults.length > 0) {
  for (const fault of faults) print(fault);
  Deno.exit(1);
}
