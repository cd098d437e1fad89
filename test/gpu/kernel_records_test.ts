import { assert, assertEquals } from "@std/assert/mod.js";
import { type Kernel, KERNELS } from "../../kernels/mod.ts";

/** Fields of a WGSL struct as name and type, in order. */
function fieldsOf(source: string, struct: string): [string, string][] {
  const body = new RegExp(`struct ${struct} \\{([^}]*)\\}`).exec(source)?.[1] ?? "";
  const lines = body.split("\n").map((line) => line.replace(/\/\/.*/, ""));
  return [...lines.join("\n").matchAll(/(\w+)\s*:\s*(\w+)/g)].map((match) => [match[1]!, match[2]!]);
}

function paramsOf(kernel: Kernel): string[] {
  return fieldsOf(kernel.source, "Params").flatMap(([name, type]) =>
    type === "u32" ? [name] : fieldsOf(kernel.source, type).map(([member, memberType]) => {
      assertEquals(memberType, "u32", `${kernel.name}: ${name}.${member}`);
      return `${name}.${member}`;
    })
  );
}

for (const kernel of KERNELS) {
  Deno.test(`kernel ${kernel.name}: the record's parameters are the fields of Params, in order`, () => {
    assertEquals([...kernel.params], paramsOf(kernel));
    assert(kernel.params.length * 4 <= 256, "a slot of the parameter buffer holds 256 bytes");
  });

  Deno.test(`kernel ${kernel.name}: the record's bindings and overrides are those of the source`, () => {
    const bindings = kernel.source.matchAll(/@binding\((\d+)\) var<storage, (\w+)> (\w+)/g);
    assertEquals(
      [...bindings].map(([, index, access, name]) => ({ index: Number(index), name, access })),
      kernel.bindings.map(({ name, access }, index) => ({
        index: index + 1,
        name,
        access: access === "read" ? "read" : "read_write",
      })),
    );
    const overrides = kernel.source.matchAll(/override (\w+): u32 = (\d+)u;/g);
    assertEquals(Object.fromEntries([...overrides].map(([, name, value]) => [name, Number(value)])), {
      ...kernel.overrides,
    });
    assert(kernel.source.includes(`fn ${kernel.entryPoint}(`));
  });
}
