/** What sizes a probe gives the dimensions of a model's inputs, whatever exporters call them. */
import { assertEquals } from "@std/assert/mod.js";
import { PROBE, ProbeSizes } from "../../src/attention/trace/probe.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";

/** Sizes of inputs of a graph that has them all. */
function sizesOf(inputs: Readonly<Record<string, readonly (string | number)[]>>): Record<string, unknown> {
  const infos = Object.entries(inputs).map(([name, shape]) => tensorInfo(name, DataType.INT64, shape));
  const sizes = new ProbeSizes(PROBE, infos);
  return Object.fromEntries(infos.map((info) => [info.name, sizes.valueOf(info).shape]));
}

const { batch, tokens, past, encoder } = PROBE;

Deno.test("sizes that say what they are are taken by name", () => {
  assertEquals(
    sizesOf({
      input_ids: ["batch_size", "sequence_length"],
      attention_mask: ["batch_size", "past_sequence_length + 1"],
      "past_key_values.0.key": ["batch_size", 4, "past_sequence_length", 8],
      encoder_hidden_states: ["batch_size", "encoder_sequence_length", 32],
    }),
    {
      input_ids: [batch, tokens],
      attention_mask: [batch, past + 1],
      "past_key_values.0.key": [batch, 4, past, 8],
      encoder_hidden_states: [batch, encoder, 32],
    },
  );
});

Deno.test("sizes whose names say nothing are taken by their place: torch.export may call every batch something else", () => {
  assertEquals(
    sizesOf({
      input_ids: ["s95", "s85"],
      attention_mask: ["s87", "s85"],
      position_ids: ["s26", "s0"],
    }),
    { input_ids: [batch, tokens], attention_mask: [batch, tokens], position_ids: [batch, tokens] },
  );
});

Deno.test("with a cache a mask covers past and new tokens, by place or as a sum of names that come later", () => {
  const expected = {
    input_ids: [batch, tokens],
    attention_mask: [batch, past + tokens],
    "past_key_values.0.key": [batch, 4, past, 8],
  };
  for (const mask of ["s9", "s1 + s4"]) {
    assertEquals(
      sizesOf({
        input_ids: ["s0", "s1"],
        attention_mask: ["s0", mask],
        "past_key_values.0.key": ["s2", 4, "s4", 8],
      }),
      expected,
    );
  }
});

Deno.test("nameless sizes are taken by their place, and one axis alone is one of tokens", () => {
  assertEquals(
    sizesOf({
      input_ids: ["", ""],
      cache_position: [""],
      "past_key_values.0.key": ["", 4, "", 8],
    }),
    { input_ids: [batch, tokens], cache_position: [tokens], "past_key_values.0.key": [batch, 4, past, 8] },
  );
});
