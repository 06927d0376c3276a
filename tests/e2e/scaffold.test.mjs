// Control variates (SCAFFOLD): the relay publishes its own with every model, each browser keeps one that never leaves, and the relay's is
// the mean of theirs.
import assert from "node:assert/strict";
import { test } from "node:test";

import { scene, within } from "./lib/scene.mjs";

const SCAFFOLD = {
  "strategy.aggregation.type": "scaffold",
  "strategy.aggregation.population": 2,
  "training.epochs": 1,
  "training.steps_per_epoch": 30,
  "rounds.min_clients": 2,
  "rounds.target_clients": 2,
};
const ROUNDS = 3;

/** The tensors of a safetensors file. */
function tensors(file) {
  const header = 8 + Number(file.readBigUInt64LE(0));
  const entries = Object.entries(JSON.parse(file.toString("utf8", 8, header)));
  return Object.fromEntries(
    entries.map(([name, { data_offsets: [start, end] }]) => {
      const bytes = Uint8Array.from(file.subarray(header + start, header + end));
      return [name, new Float32Array(bytes.buffer)];
    }),
  );
}

/** The shared control variate beside a model, in the order of the flat vector. */
function shared(file) {
  const all = tensors(file);
  const names = ["0.kernel", "0.bias", "2.kernel", "2.bias"].map((name) => `control.layers.${name}`);
  return names.flatMap((name) => [...all[name]]);
}

/** The control variates that a profile keeps, by their keys. */
const kept = (tab) =>
  tab.page.evaluate(async () => {
    const done = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await done(indexedDB.open("unsaid"));
    const store = () => database.transaction("pending").objectStore("pending");
    const keys = await done(store().getAllKeys());
    const values = await done(store().getAll());
    database.close();
    return keys.map((key, at) => [key, values[at] instanceof Float32Array ? [...values[at]] : null]);
  });

test("the relay's control variate is the mean of those that two browsers keep, and it is forgotten with ledger or examples", async (t) => {
  await scene({ set: SCAFFOLD }, async ({ relay, proxy, tab }) => {
    const [one, two] = [await (await tab()).ready({ shard: 0 }), await (await tab()).ready({ shard: 1, examples: 50 })];
    assert.deepEqual([await kept(one), await kept(two)], [[], []], "zeros are not kept");
    const runs = await within(120_000, "the rounds", Promise.all([one, two].map((it) => it.run({ rounds: ROUNDS }))));
    for (const run of runs) assert.deepEqual([run.value?.rounds, run.value?.reason], [ROUNDS, "rounds-done"], run.message);

    const rounds = await relay.get("/v1/tasks/mnist/rounds");
    assert.equal(rounds.length, ROUNDS + 1);
    const files = await Promise.all(
      rounds.map(async ({ model, model_bytes }) => {
        const answer = await fetch(`${relay.origin}/v1/tasks/mnist/models/${model}`);
        const file = Buffer.from(await answer.arrayBuffer());
        assert.equal(file.length, model_bytes);
        return file;
      }),
    );
    const published = files.map(shared);
    assert.ok(published[0].every((value) => value === 0), "it begins as zeros");
    for (let round = 1; round <= ROUNDS; round += 1) {
      assert.ok(published[round].some((value, at) => value !== published[round - 1][at]), `round ${round} moved it`);
    }

    const own = [];
    for (const it of [one, two]) {
      const [[key, value], ...more] = await kept(it);
      assert.match(key, /\/mnist\/0\/control$/);
      assert.deepEqual(more, [], "nothing waits");
      own.push(value);
    }
    assert.ok(own[0].some((value, at) => value !== own[1][at]), "each has its own");
    const far = published[ROUNDS].reduce((most, value, at) => Math.max(most, Math.abs(value - (own[0][at] + own[1][at]) / 2)), 0);
    const size = own[0].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // Each of them was rounded to a 32-bit float once in a round.
    assert.ok(far < 3 * ROUNDS * 2 ** -24 * Math.max(1, size), `off by ${far}, of ${size}`);
    assert.ok(size > 100 * far, `${size}`);
    t.diagnostic(`the largest entry of a browser's is ${size}, the shared one is off their mean by ${far}`);

    // What a browser keeps is in nothing that it sent.
    const largest = own[0].reduce((at, value, index) => (Math.abs(value) > Math.abs(own[0][at]) ? index : at), 0);
    const bytes = Buffer.from(Float32Array.of(own[0][largest]).buffer);
    const bodies = proxy.updates().map(({ body }) => body);
    assert.equal(bodies.length, 2 * ROUNDS);
    assert.ok(bodies.every((body) => !body.includes(bytes)));

    assert.equal((await one.call("budget.erase")).code, undefined);
    assert.deepEqual(await kept(one), []);
    assert.equal((await kept(two)).length, 1, "the other's is the other's");
    assert.equal((await two.call("data.clear")).value.examples, 0);
    assert.deepEqual(await kept(two), [], "what was made of the examples goes with them");
  });
});
