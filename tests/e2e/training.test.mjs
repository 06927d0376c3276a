// Tabs learn together: the demo page, a real relay, MNIST.
import assert from "node:assert/strict";
import { test } from "node:test";

import { runTabs } from "../../xtask/driver/headless.mjs";
import { ledgerEpsilon, rhoPerRound } from "./lib/accountant.mjs";
import { chromiumProgram, pageFolder } from "./lib/environment.mjs";
import { Relay } from "./lib/relay.mjs";

async function job({ clients, rounds, backend, noise, set = {}, ...more }) {
  const relay = await Relay.start({
    page: pageFolder(),
    set: {
      "privacy.mode": noise ? "local" : "none",
      "rounds.min_clients": 1,
      "rounds.target_clients": clients,
      "rounds.deadline_ms": 120_000,
      ...set,
    },
  });
  try {
    const table = [];
    const config = { origin: relay.origin, chromium: chromiumProgram(), clients, rounds, backend, noise, ...more };
    const end = await runTabs(config, (row) => table.push(row));
    const manifest = await relay.get("/v1/tasks/mnist/manifest");
    return { table, end, manifest, initial: (await relay.rounds())[0] };
  } finally {
    await relay.close();
  }
}

for (const backend of ["cpu", "webgpu"]) {
  test(`four tabs reach 88 % in five rounds on ${backend}`, async (t) => {
    const { table, end, initial } = await job({ clients: 4, rounds: 5, backend, noise: false });
    t.diagnostic(table.map((row) => `${row.round}: ${(row.accuracy * 100).toFixed(2)} %, ${row.seconds} s`).join("; "));
    assert.deepEqual(
      table.map((row) => [row.round, row.clients, row.epsilon]),
      [1, 2, 3, 4, 5].map((round) => [round, 4, null]),
    );
    assert.equal(end.backend, backend);
    assert.ok(initial.accuracy < 0.3, `an untrained model guesses: ${initial.accuracy}`);
    assert.ok(table[4].accuracy >= 0.88, `${table[4].accuracy}`);
    assert.ok(table[4].accuracy > table[0].accuracy);
    for (const row of table) assert.ok(row.bytes_up > 0 && row.bytes_down > 0 && row.seconds > 0);
  });
}

test("with local noise, ε is what an accountant of our own computes, round by round", async () => {
  const { table, end, manifest } = await job({ clients: 2, rounds: 3, backend: "cpu", noise: true });
  assert.equal(manifest.privacy.mode, "local");
  const rho = rhoPerRound(manifest.privacy.noise_multiplier);
  for (const row of table) {
    const expected = ledgerEpsilon(row.round * rho, end.delta);
    assert.ok(Math.abs(row.epsilon / expected - 1) < 1e-3, `round ${row.round}: ${row.epsilon}, expected ${expected}`);
  }
});

test("fewer examples and the two-digit split are what the tabs train on", async () => {
  const { table } = await job({
    clients: 2,
    rounds: 1,
    backend: "cpu",
    noise: false,
    partition: "shards",
    examples: 50,
  });
  assert.equal(table.length, 1);
  assert.ok(table[0].accuracy < 0.7, `50 examples of at most two digits each cannot teach more: ${table[0].accuracy}`);
});
