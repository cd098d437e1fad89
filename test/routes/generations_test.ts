import { assertEquals } from "@std/assert/mod.js";
import { serve } from "../support/http.ts";

Deno.test("generations are listed, and one that is held can serve again", async () => {
  const { send, services } = serve();
  const listed = await (await send("GET", "/v1/generations")).json();
  assertEquals(listed.generations.map((one: { generation: number; active: boolean }) => [one.generation, one.active]), [
    [0, false],
    [1, true],
  ]);
  const response = await send("POST", "/v1/generations/0/activate");
  assertEquals((await response.json()).active, true);
  assertEquals(response.headers.get("x-tuckerd-generation"), "0");
  assertEquals(services.active, 0);
});

Deno.test("one that isn't held, or isn't a number, changes nothing", async () => {
  const { send, services } = serve();
  assertEquals((await send("POST", "/v1/generations/7/activate")).status, 404);
  const response = await send("POST", "/v1/generations/newest/activate");
  assertEquals((await response.json()).detail, 'path.n must be a generation number, got "newest"');
  assertEquals(services.active, 1);
});

Deno.test("before the first generation the list is empty", async () => {
  const { send, services } = serve();
  services.state = { state: "loading", progress: 0 };
  const response = await send("GET", "/v1/generations");
  assertEquals(await response.json(), { generations: [] });
  assertEquals(response.headers.has("x-tuckerd-generation"), false);
});
