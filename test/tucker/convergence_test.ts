/** When sweeps stop, by sequences of energies whose limits are known. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { Convergence } from "../../src/tucker/convergence.ts";
import { movedOn } from "../../src/tucker/momentum.ts";

/** Sweeps until convergence, and the relative error that is then left to gain. */
function stop(energyAfter: (sweep: number) => number, limit: number): { sweeps: number; left: number } {
  const convergence = new Convergence({ tolerance: 1e-4, roundoff: 1e-12 });
  for (let sweep = 1; sweep <= 1000; sweep++) {
    const energy = energyAfter(sweep);
    if (convergence.add(energy)) return { sweeps: sweep, left: Math.sqrt(1 - energy) - Math.sqrt(1 - limit) };
  }
  throw new Error("never converged");
}

Deno.test("gains that fall by a constant ratio are summed to their end", () => {
  for (const ratio of [0.2, 0.5, 0.8, 0.9, 0.97, 0.99]) {
    // gains g·ratioᵏ: the limit is 0.3
    const { left, sweeps } = stop((sweep) => 0.3 - 0.01 * ratio ** sweep, 0.3);
    assert(left <= 1.0001e-4 && left > 0, `ratio ${ratio}: ${left} left after ${sweeps} sweeps`);
    if (ratio >= 0.8) assert(left >= 0.9e-4 * ratio, `ratio ${ratio}: ${left} left after ${sweeps} sweeps, too many`);
  }
});

Deno.test("a plateau isn't taken for the end", () => {
  // gains of 6e-5 that don't fall until sweep 30, after a fast start
  const energy = (sweep: number): number => 0.3 - 0.1 ** sweep + 6e-5 * Math.min(sweep, 30);
  const { sweeps } = stop(energy, energy(1000));
  assert(sweeps > 30, `stopped at sweep ${sweeps}`);
});

Deno.test("the slower of the last two falls counts", () => {
  const gains = [0.8e-4, 0.97 * 0.8e-4, 0.5 * 0.97 * 0.8e-4];
  const convergence = new Convergence({ tolerance: 1e-4, roundoff: 1e-12 });
  let energy = 0.3;
  assertEquals(convergence.add(energy), false);
  for (const gain of gains) assertEquals(convergence.add(energy += gain), false, `${gain}`);
  // two halvings in a row leave half of 0.2e-4 and less
  assertEquals(convergence.add(energy += gains[2]! / 2), true);
});

Deno.test("a gain of nothing ends at once, unless momentum may have overshot", () => {
  const after = (...energies: number[]): boolean => {
    const convergence = new Convergence({ tolerance: 1e-4, roundoff: 1e-12 });
    return energies.map((energy) => convergence.add(energy)).at(-1)!;
  };
  assertEquals(after(0.3), false);
  assertEquals(after(0.3, 0.3 + 1e-6), true);
  assertEquals(after(0.3, 0.31, 0.31 + 1e-6), false);
  assertEquals(after(0.3, 0.31, 0.31 + 1e-6, 0.31 + 2e-6), true);
  assertEquals(after(0.3, 0.31, 0.3099), false, "a loss isn't a gain");
  assertEquals(after(1 - 1e-13, 1 - 2e-13), true, "rounding");
  assertEquals(after(0.3, NaN), false);
});

Deno.test("momentum turns a direction by nine tenths of its last turn", async () => {
  const turned = (angle: number): Float64Array => Float64Array.of(Math.cos(angle), Math.sin(angle), 0);
  for (const angle of [0.3, 0.01, -0.1]) {
    const moved = await movedOn(turned(angle), turned(0), 3);
    // U + β (I − V Vᵀ) U with V = (1, 0, 0)
    const expected = Math.atan2(1.9 * Math.sin(angle), Math.cos(angle));
    assert(Math.abs(Math.atan2(moved[1]!, moved[0]!) - expected) <= 1e-12, `${angle}: ${moved}`);
    assert(Math.abs(Math.hypot(...moved) - 1) <= 1e-14);
  }
});

Deno.test("momentum leaves a subspace where it is when only its basis has turned", async () => {
  const [c, s] = [Math.cos(0.7), Math.sin(0.7)];
  const before = Float64Array.of(1, 0, 0, 1, 0, 0);
  const found = Float64Array.of(c, -s, s, c, 0, 0);
  const moved = await movedOn(found, before, 3);
  for (const [i, value] of moved.entries()) assert(Math.abs(value - found[i]!) <= 1e-12, `${moved}`);
});
