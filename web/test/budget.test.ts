import assert from "node:assert/strict";
import { test } from "node:test";

import type { BudgetView, ManifestView } from "unsaid";

import { epsilonOf, limitFor, rhoOf, rhoPerRound, roundsWithin } from "../src/epsilon.js";
import { warning, worthOf } from "../src/honesty.js";

const delta = 1e-5;

test("ε is PRIVACY.md’s", () => {
  const table: Readonly<Record<number, readonly number[]>> = { 0.5: [26.03, 81.31], 1: [10.78, 30.24], 4: [2.18, 5.41], 16: [0.48, 1.15] };
  for (const [z, row] of Object.entries(table)) {
    [1, 5].forEach((rounds, at) => assert.ok(Math.abs(epsilonOf(rounds * rhoPerRound(Number(z)), delta) - (row[at] ?? 0)) <= 0.0051, z));
  }
  assert.equal(epsilonOf(0, delta), 0);
  for (const rho of [1e-4, 0.3, 200, 1e5]) assert.ok(Math.abs(rhoOf(epsilonOf(rho, delta), delta) / rho - 1) < 1e-6, String(rho));
});

test("a proposed limit pays for the rounds it was made for", () => {
  for (const noiseMultiplier of [0.05, 0.1, 1, 8]) {
    for (const before of [0, 1, 7]) {
      const rho = rhoPerRound(noiseMultiplier);
      const past = { spent: epsilonOf(before * rho, delta), delta, noiseMultiplier };
      const limit = limitFor(20, past);
      const exact = epsilonOf((before + 20) * rho, delta);
      assert.ok(limit > exact && limit < 1.12 * exact, `${limit} for ${exact}`);
      assert.ok(roundsWithin(limit, past) >= 20);
      assert.equal(roundsWithin(past.spent, past), 0);
      assert.equal(roundsWithin(1.01 * epsilonOf((before + 1) * rho, delta), past), 1);
    }
  }
});

function manifest(noiseMultiplier: number | null): ManifestView {
  const privacy =
    noiseMultiplier === null
      ? { mode: "none" }
      : { mode: "local", noiseMultiplier, sigma: 1, delta, epsilonPerRound: epsilonOf(rhoPerRound(noiseMultiplier), delta) };
  return { privacy, rounds: { minClients: 2, targetClients: 4, deadlineMs: 1 } } as ManifestView;
}

test("terms that protect nobody are named, those that protect are not", () => {
  const budget = (spent: number): BudgetView => ({ epsilon: 8, delta, spent, left: 0, rounds: 1, unit: "update", ifOneMore: null });
  assert.equal(warning(null, null), null);
  assert.equal(warning(manifest(4), budget(5)), null);
  assert.match(warning(manifest(null), null)?.title ?? "", /No noise/);
  const weak = warning(manifest(0.1), budget(0));
  assert.match(weak?.short ?? "", /ε = 294, .* protects nobody/);
  assert.match(weak?.needed ?? "", /about 4 times that length \(ε = 2.19 a round\).* about 6,400 devices/);
  assert.match(warning(manifest(4), budget(21))?.short ?? "", /spent ε = 21/);
  const example = (epsilonPerRound: number): ManifestView => ({
    ...manifest(null),
    privacy: { mode: "example", noiseMultiplier: 0.3, clipL2: 1, samplingRate: 0.1, stepsPerRound: 50, epsilonPerRound, delta },
  });
  assert.equal(warning(example(3), budget(5)), null);
  assert.match(warning(example(120), budget(0))?.why ?? "", /Each of 50 steps .* only 0.3 times what one of them can add/);
  assert.match(warning(example(3), budget(21))?.short ?? "", /spent ε = 21/);
  assert.equal(worthOf(8), null);
  assert.match(worthOf(50) ?? "", /promises little/);
});
