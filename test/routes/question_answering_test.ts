import { assert, assertEquals, assertStringIncludes } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { serve } from "../support/http.ts";

const inputs = { question: "Who designed the bridge?", context: "Ada Marlow designed it." };

Deno.test("an answer is an object for top_k 1 and an array above", async () => {
  const { send } = serve();
  const one = await send("POST", "/", { body: { inputs } });
  assertEquals(await one.json(), { answer: "Ada", score: 0.9, start: 0, end: 3 });
  const explicit = await send("POST", "/", { body: { inputs, parameters: { top_k: 1 } } });
  assertEquals(await explicit.json(), { answer: "Ada", score: 0.9, start: 0, end: 3 });
  const two = await send("POST", "/", { body: { inputs, parameters: { top_k: 2 } } });
  assertEquals(await two.json(), [
    { answer: "Ada", score: 0.9, start: 0, end: 3 },
    { answer: "Marlow", score: 0.45, start: 4, end: 10 },
  ]);
  // One candidate only: still an array, as asked.
  const short = await send("POST", "/", { body: { inputs: { ...inputs, context: "Ada" }, parameters: { top_k: 5 } } });
  assertEquals((await short.json()).length, 1);
});

Deno.test("every parameter reaches the service by its name, offsets apart", async () => {
  const { send, services } = serve();
  const parameters = {
    top_k: 2,
    doc_stride: 32,
    max_answer_len: 5,
    max_seq_len: 64,
    max_question_len: 20,
    handle_impossible_answer: true,
    align_to_words: false,
  };
  await send("POST", "/", { body: { inputs, parameters: { ...parameters, offsets: "utf16" } } });
  assertEquals(services.asked, [{ question: { ...inputs, parameters, offsets: "utf16" }, choice: {} }]);
});

Deno.test("question and context are taken without their wrapper, and older clients' options too", async () => {
  const { send, services } = serve();
  const response = await send("POST", "/", {
    body: { ...inputs, parameters: { top_k: 2 }, options: { wait_for_model: true } },
  });
  assertEquals(response.status, 200);
  assertEquals(services.asked[0]!.question, { ...inputs, parameters: { top_k: 2 } });
});

Deno.test("an unknown parameter is named, and nothing is asked", async () => {
  const { send, services } = serve();
  const response = await send("POST", "/", { body: { inputs, parameters: { topk: 3, doc_stride: 1.5 } } });
  assertEquals(response.status, 422);
  const problem = await response.json();
  assertEquals(problem.errors, [
    { path: "body.parameters.doc_stride", rule: "must be an integer", value: "1.5" },
    { path: "body.parameters.topk", rule: "is not a known parameter" },
  ]);
  assertEquals(
    problem.detail,
    "body.parameters.doc_stride must be an integer, got 1.5; body.parameters.topk is not a known parameter",
  );
  assertEquals(services.asked, []);
});

Deno.test("bad inputs are refused by field, rule and value", async (t) => {
  const cases: [unknown, string][] = [
    [{ inputs: { question: "", context: "x" } }, 'body.inputs.question must not be empty, got ""'],
    [{ inputs: { question: " \n", context: "x" } }, 'body.inputs.question must not be empty, got " \\n"'],
    [{ inputs: { question: "x" } }, "body.inputs.context is required"],
    [{ question: "x" }, "body.inputs.context is required"],
    [{ inputs: { question: 3, context: "x" } }, "body.inputs.question must be a string, got 3"],
    [{ inputs: "What?" }, 'body.inputs must be an object, got "What?"'],
    [{}, "body.inputs is required"],
    [[], "body must be an object, got []"],
    [null, "body must be an object, got null"],
    [{ inputs, parameters: { top_k: 0 } }, "body.parameters.top_k must be at least 1, got 0"],
    [{ inputs, parameters: { top_k: "3" } }, 'body.parameters.top_k must be an integer, got "3"'],
    [
      { inputs, parameters: { offsets: "bytes" } },
      'body.parameters.offsets must be one of "code_points", "utf16", got "bytes"',
    ],
    [
      { inputs: { question: ["x".repeat(99)], context: "x" } },
      "body.inputs.question must be a string, got an array of 1 items",
    ],
  ];
  for (const [body, detail] of cases) {
    await t.step(detail, async () => {
      const response = await serve().send("POST", "/", { body });
      assertEquals(response.status, 422);
      assertEquals((await response.json()).detail, detail);
    });
  }
});

Deno.test("the generation that gave an answer is told, and can be picked", async () => {
  const { send, services } = serve();
  const now = await send("POST", "/", { body: { inputs } });
  assertEquals(now.headers.get("x-tuckerd-generation"), "1");
  const byHeader = await send("POST", "/", { body: { inputs }, headers: { "x-tuckerd-generation": "0" } });
  assertEquals(byHeader.headers.get("x-tuckerd-generation"), "0");
  const byId = await send("POST", "/models/default@0", { body: { inputs } });
  assertEquals(byId.headers.get("x-tuckerd-generation"), "0");
  assertEquals(services.asked.map((one) => one.choice), [{}, { generation: 0 }, { generation: 0 }]);
  const both = await send("POST", "/models/default@0", { body: { inputs }, headers: { "x-tuckerd-generation": "1" } });
  assertEquals(both.status, 422);
  assertStringIncludes((await both.json()).detail, "generation 0 and the header x-tuckerd-generation for 1");
  const gone = await send("POST", "/models/default@7", { body: { inputs } });
  assertEquals(gone.status, 404);
});

Deno.test("a model is named whole, in two parts or percent-encoded; another one isn't here", async () => {
  const { send, services } = serve();
  services.modelId = "hf:owner/name@main";
  for (
    const path of ["/models/hf:owner/name@main", "/models/hf%3Aowner%2Fname%40main", "/models/hf:owner/name@main@0"]
  ) {
    assertEquals((await send("POST", path, { body: { inputs } })).status, 200, path);
  }
  const response = await send("POST", "/models/other", { body: { inputs } });
  assertEquals(response.status, 404);
  assertEquals((await response.json()).detail, 'There is no model "other" here; this server serves hf:owner/name@main');
});

Deno.test("overload is 429 with Retry-After, in whole seconds", async () => {
  const { send, services } = serve();
  services.failure = new TuckerdError("overloaded", "The queue of 64 is full", {
    fields: { retryAfterSeconds: 2.2, queue: 64 },
  });
  const response = await send("POST", "/", { body: { inputs } });
  assertEquals(response.status, 429);
  assertEquals(response.headers.get("retry-after"), "3");
  assertEquals((await response.json()).queue, 64);
});

Deno.test("before the model serves, questions are answered 503 with state, progress and Retry-After", async () => {
  const { send, services } = serve();
  services.state = { state: "compressing", progress: 0.5 };
  const response = await send("POST", "/", { body: { inputs } });
  assertEquals(response.status, 503);
  assertEquals(response.headers.get("retry-after"), "1");
  assertEquals(response.headers.get("x-tuckerd-generation"), null);
  const problem = await response.json();
  assertEquals([problem.state, problem.progress], ["compressing", 0.5]);
  assertEquals(services.asked, []);
});

Deno.test("a bug is answered without its message", async () => {
  const { send, services } = serve();
  services.failure = new TypeError("secret words of the user");
  const response = await send("POST", "/", { body: { inputs } });
  assertEquals(response.status, 500);
  assert(!(await response.text()).includes("secret"));
});

Deno.test("no answer at all is a server error, not an undefined body", async () => {
  const { send, services } = serve();
  services.questionAnswering.answer = () => Promise.resolve({ answers: [], generation: 1 });
  assertEquals((await send("POST", "/", { body: { inputs } })).status, 500);
  const many = await send("POST", "/", { body: { inputs, parameters: { top_k: 2 } } });
  assertEquals([many.status, await many.json()], [200, []]);
});
