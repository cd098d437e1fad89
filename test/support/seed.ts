/**
 * Seeds of random tests: another one in every run, so that time explores; `TEST_SEED` repeats a run. Continuous integration sets it, so
 * that a failure there is the change's.
 *
 * @module
 */

/** A seed of 31 bits, which the test prints where it fails. */
export function testSeed(): number {
  const given = Deno.env.get("TEST_SEED");
  return given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);
}
