/** Changing ranks while clients ask: nothing fails, and every answer is the one of the generation that it names. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { ServerProcess } from "../support/program.ts";

const model = new URL("../testdata/serving/bert-qa/", import.meta.url).pathname;
const clients = 8;
const changes = 20;

function start(cache: string, env: Record<string, string> = {}): Promise<ServerProcess> {
  return ServerProcess.start(["--model", model, "--device", "cpu", "--cache-dir", cache, "--ranks", "30,8,4"], env);
}

interface Given {
  readonly generation: number;
  readonly question: number;
  readonly answer: string;
}

const context =
  "Marta Lindqvist was born in Osterby in 1931. She wrote The Silver Orchard in 1960 and later moved to Varna.";
const questions = ["Where was Marta Lindqvist born?", "When did she write The Silver Orchard?", "What did she write?"];

Deno.test("8 clients ask without pause while the ranks change 20 times", async () => {
  const cache = await Deno.makeTempDir();
  await using server = await start(cache, { TUCKERD_GENERATIONS: "32" });
  await server.ready();
  const seen: Given[] = [];
  const failures: string[] = [];
  let asking = true;
  let answered = 0;
  let wake = Promise.withResolvers<void>();
  const client = async () => {
    while (asking) {
      const question = answered % questions.length;
      const response = await server.post("/", { inputs: { question: questions[question], context } });
      const generation = Number(response.headers.get("x-tuckerd-generation"));
      const body = await response.json();
      if (response.status === 200) seen.push({ generation, question, answer: JSON.stringify(body) });
      else failures.push(`${response.status} ${JSON.stringify(body)}`);
      answered++;
      wake.resolve();
    }
  };
  const running = Array.from({ length: clients }, client);
  const generations: number[] = [];
  for (let change = 0; change < changes; change++) {
    const response = await server.post("/v1/compression?wait=true", {
      ranks: [8 + (change % 5) * 4, 4 + change % 3, 4],
    });
    const report = await response.json();
    assertEquals(response.status, 200, JSON.stringify(report));
    generations.push(report.generation);
    wake = Promise.withResolvers();
    await wake.promise; // at least one answer between two changes
  }
  asking = false;
  await Promise.all(running);
  assertEquals(failures, []);
  assertEquals(generations, Array.from({ length: changes }, (_, i) => i + 2));
  assert(new Set(seen.map(({ generation }) => generation)).size > changes / 2, "answers came from too few generations");

  // Every answer is what its generation gives when it is asked alone. Batches may differ in the last digits of a score.
  for (const generation of new Set(seen.map((one) => one.generation))) {
    for (const [question, text] of questions.entries()) {
      const response = await server.post("/", { inputs: { question: text, context } }, {
        "x-tuckerd-generation": String(generation),
      });
      assertEquals(response.headers.get("x-tuckerd-generation"), String(generation));
      const alone = await response.json();
      for (const one of seen.filter((each) => each.generation === generation && each.question === question)) {
        const given = JSON.parse(one.answer);
        assertEquals([given.answer, given.start, given.end], [alone.answer, alone.start, alone.end]);
        assert(Math.abs(given.score - alone.score) <= 1e-5);
      }
    }
  }
  await Deno.remove(cache, { recursive: true });
});

async function decompositionProcess(server: ServerProcess): Promise<number> {
  const [child, ...others] = await server.children();
  if (child === undefined || others.length > 0) throw new Error("expected one decomposition process");
  return child;
}

Deno.test("the decomposition process is killed mid-job: the job fails with a reason, the old generation serves", async () => {
  const cache = await Deno.makeTempDir();
  await using server = await start(cache);
  await server.ready();
  const child = await decompositionProcess(server);
  Deno.kill(child, "SIGSTOP"); // the job now begins but can't end
  const accepted = await server.post("/v1/compression", { ranks: [20, 6, 2] });
  assertEquals(accepted.status, 202);
  const { id } = await accepted.json();
  const location = accepted.headers.get("location")!;
  assertEquals(location, `/v1/compression/jobs/${id}`);
  const second = await server.post("/v1/compression", { ranks: [21, 6, 2] });
  assertEquals([second.status, (await second.json()).job], [409, id]);
  // The events end with the job; a job that never ends fails the test here, where nobody would notice otherwise.
  const events = fetch(`${server.url}${location}/events`, { signal: AbortSignal.timeout(60_000) })
    .then((response) => response.text());
  Deno.kill(child, "SIGKILL");
  assert((await events).includes('"failed"'));
  const job = await (await fetch(`${server.url}${location}`)).json();
  assertEquals(job.state, "failed");
  assert(job.error.detail.includes("SIGKILL"), job.error.detail);

  const answer = await server.post("/", { inputs: { question: questions[0], context } });
  assertEquals([answer.status, answer.headers.get("x-tuckerd-generation")], [200, "1"]);
  await answer.body?.cancel();
  const again = await server.post("/v1/compression?wait=true", { ranks: [20, 6, 2] });
  assertEquals([again.status, (await again.json()).generation], [200, 2]);
  await Deno.remove(cache, { recursive: true });
});

Deno.test("a cancelled job changes nothing", async () => {
  const cache = await Deno.makeTempDir();
  await using server = await start(cache);
  await server.ready();
  const child = await decompositionProcess(server);
  Deno.kill(child, "SIGSTOP");
  const { id } = await (await server.post("/v1/compression", { ranks: [20, 6, 2] })).json();
  const response = await fetch(`${server.url}/v1/compression/jobs/${id}`, { method: "DELETE" });
  assertEquals((await response.json()).state, "cancelled");
  const report = await (await fetch(`${server.url}/v1/compression`)).json();
  assertEquals([report.generation, report.layers[0].ranks], [1, [30, 8, 4]]);
  assertEquals((await server.stop()).code, 0);
  await Deno.remove(cache, { recursive: true });
});
