// The budget: what the ledger says is what was spent, it outlives a reload, and it is never overdrawn.
import assert from "node:assert/strict";
import { test } from "node:test";

import { ledgerEpsilon, rhoPerRound, sampledEpsilon } from "./lib/accountant.mjs";
import { scene, until, within } from "./lib/scene.mjs";

const DELTA = 1e-5;
const LOCAL = { "privacy.mode": "local" };

const close = (found, expected) =>
  assert.ok(Math.abs(found / expected - 1) < 1e-3, `ε is ${found}, but the accountant says ${expected}`);

test("the ledger's ε is the accountant's for the rounds taken part in, and survives a reload", async (t) => {
  await scene({ set: LOCAL }, async ({ proxy, tab }) => {
    const options = { budget: { epsilon: 1e6, delta: DELTA } };
    const one = await (await tab()).ready(options);
    const { value: manifest } = await one.call("manifest");
    const rho = rhoPerRound(manifest.privacy.noiseMultiplier);
    close(manifest.privacy.epsilonPerRound, ledgerEpsilon(rho, manifest.privacy.delta));
    assert.equal((await one.call("budget.get")).value.spent, 0);
    close((await one.call("budget.get")).value.ifOneMore, ledgerEpsilon(rho, DELTA));
    await one.run({ rounds: 3 });
    const { value: before } = await one.call("budget.get");
    assert.equal(before.rounds, 3);
    assert.equal(before.delta, DELTA);
    close(before.spent, ledgerEpsilon(3 * rho, DELTA));
    close(before.ifOneMore, ledgerEpsilon(4 * rho, DELTA));
    const told = (await one.events("contribution")).map((event) => event.epsilonSpent);
    [1, 2, 3].forEach((rounds) => close(told[rounds - 1], ledgerEpsilon(rounds * rho, DELTA)));
    // Debited before the upload, not after.
    const order = (await one.events()).filter((event) => ["budget", "upload"].includes(event.type));
    const firstUpload = order.findIndex((event) => event.type === "upload");
    assert.ok(order.slice(0, firstUpload).some((event) => event.type === "budget" && event.rounds === 1));
    t.diagnostic(`z = ${manifest.privacy.noiseMultiplier}: ε = ${before.spent.toFixed(3)} after 3 rounds`);

    await one.load(proxy.origin);
    assert.equal((await one.connect(options)).code, undefined);
    const { value: after } = await one.call("budget.get");
    assert.deepEqual([after.spent, after.rounds], [before.spent, before.rounds]);
    assert.equal((await one.call("data.summary")).value.examples, 600, "so do the examples");
  });
});

test("an update under local noise is noised: no coordinate stays where it was", async () => {
  await scene({ set: LOCAL }, async ({ tab }) => {
    const one = await (await tab()).ready({ budget: { epsilon: 1e6, delta: DELTA } });
    await one.run({ rounds: 1 });
    const [update] = await one.events("update");
    assert.ok(update.sigmaSteps > 1);
    const { edges, before, after } = update.histogram;
    assert.equal(edges.length, before.length + 1);
    const sum = (counts) => counts.reduce((total, count) => total + count, 0);
    assert.equal(sum(before), update.coordinates);
    assert.equal(sum(after), update.coordinates);
    const spread = (counts) => {
      const middle = (index) => (edges[index] + edges[index + 1]) / 2;
      return Math.sqrt(counts.reduce((total, count, index) => total + count * middle(index) ** 2, 0) / sum(counts));
    };
    assert.ok(spread(after) > 2 * spread(before), `${spread(after)} after, ${spread(before)} before`);
  });
});

test("without budget nothing is sent and nothing is debited", async () => {
  await scene({ set: LOCAL }, async ({ proxy, tab }) => {
    const one = await (await tab()).ready({ budget: { epsilon: 0.001, delta: DELTA } });
    const result = await within(30_000, "the refusal", one.run({ rounds: 1 }));
    assert.equal(result.code ?? result.value.reason, "budget-exhausted", result.message);
    assert.equal(proxy.updates().length, 0);
    assert.equal((await one.call("budget.get")).value.rounds, 0);
  });
});

test("a budget for two rounds pays two rounds", async () => {
  await scene({ set: LOCAL }, async ({ proxy, relay, tab }) => {
    const manifest = await relay.get("/v1/tasks/mnist/manifest");
    const rho = rhoPerRound(manifest.privacy.noise_multiplier);
    const epsilon = (ledgerEpsilon(2 * rho, DELTA) + ledgerEpsilon(3 * rho, DELTA)) / 2;
    const one = await (await tab()).ready({ budget: { epsilon, delta: DELTA } });
    const result = await one.run({ rounds: 5 });
    assert.equal(result.value?.reason, "budget-exhausted", `${result.code}: ${result.message}`);
    assert.equal(result.value.rounds, 2);
    assert.equal(proxy.updates().length, 2);
    // A larger limit, set by the person, lets it go on; what was spent stays spent.
    const raised = await one.call("budget.set", { epsilon: 2 * epsilon + 100, delta: DELTA });
    assert.equal(raised.value.rounds, 2);
    assert.equal((await one.run({ rounds: 1 })).value?.reason, "rounds-done");
    assert.equal((await one.call("budget.get")).value.rounds, 3);
  });
});

for (const backend of ["cpu", "webgpu"]) {
  test(`on ${backend}, a task that protects single examples is paid for by its steps, and its update gets no more noise`, async (t) => {
    const set = { "privacy.mode": "example", "privacy.clip_l2": 1, "privacy.sampling_rate": 0.2, "privacy.noise_multiplier": 2 };
    await scene({ set: { ...set, "training.epochs": 2, "training.batch_size": 120 } }, async ({ tab }) => {
      const one = await (await tab()).ready({ backend, budget: { epsilon: 1e6, delta: DELTA } });
      const { privacy } = (await one.call("manifest")).value;
      assert.deepEqual([privacy.mode, privacy.stepsPerRound, privacy.samplingRate, privacy.clipL2], ["example", 10, 0.2, 1]);
      close(privacy.epsilonPerRound, sampledEpsilon(10, 0.2, 2, DELTA));
      await one.run({ rounds: 2 });
      const { value: after } = await one.call("budget.get");
      close(after.spent, sampledEpsilon(20, 0.2, 2, DELTA));
      assert.deepEqual([after.rounds, after.unit], [2, "example"]);
      const [update] = await one.events("update");
      assert.equal(update.sigmaSteps, 0);
      assert.deepEqual(update.histogram.before, update.histogram.after);
      // ε of the same steps, were nothing sampled: the ledger knows better.
      assert.ok(after.spent < 0.6 * sampledEpsilon(20, 0.999999, 2, DELTA));
      const [event] = await one.events("backend");
      assert.equal(event.backend, backend);
      t.diagnostic(`ε = ${after.spent.toFixed(3)} after 2 rounds`);
    });
  });
}

test("a task that protects single examples only is refused unless the page asks for that", async () => {
  const set = { "privacy.mode": "example", "privacy.clip_l2": 1, "privacy.sampling_rate": 0.2, "privacy.noise_multiplier": 2 };
  await scene({ set }, async ({ proxy, tab }) => {
    const one = await tab();
    const opened = await one.connect({ floors: { minCohort: 1 } });
    const failed = opened.code ? opened : await one.call("manifest");
    assert.equal(failed.code, "manifest-below-floor", failed.message);
    assert.match(failed.message, /not you as a whole/);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);
    const other = await tab();
    assert.equal((await other.connect({ floors: { minCohort: 1, exampleLevel: true } })).code, undefined);
    assert.equal((await other.call("manifest")).value.privacy.mode, "example");
  });
});

test("a manifest below the client's floors is refused before anything is trained", async () => {
  await scene({}, async ({ proxy, tab }) => {
    const one = await tab();
    // The default floors ask for noise.
    const opened = await one.connect({ floors: {} });
    const failed = opened.code ? opened : await one.call("manifest");
    assert.equal(failed.code, "manifest-below-floor", failed.message);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);
  });
});

test("a page that knows the relay's key takes terms that it has signed, and no others", async () => {
  await scene({ signs: true }, async ({ relay, proxy, tab }) => {
    const trusting = await tab();
    const opened = await trusting.connect({ relayKey: relay.publicKey });
    assert.equal(opened.code, undefined, opened.message);
    assert.equal((await trusting.call("manifest")).value?.task, "mnist");
    const other = await tab();
    const refused = await other.connect({ relayKey: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" });
    const failed = refused.code ? refused : await other.call("manifest");
    assert.equal(failed.code, "bad-manifest", failed.message);
    assert.match(failed.message, /not signed by the key/);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);
  });
  await scene({}, async ({ tab }) => {
    const one = await tab();
    const refused = await one.connect({ relayKey: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" });
    const failed = refused.code ? refused : await one.call("manifest");
    assert.equal(failed.code, "bad-manifest", failed.message);
    assert.match(failed.message, /not signed, and the page asks/);
  });
});

test("two tabs of one profile: the second waits for the first", async () => {
  const set = { "rounds.min_clients": 1, "rounds.target_clients": 1 };
  await scene({ set }, async ({ profile: newProfile, tab }) => {
    const profile = await newProfile();
    const first = await (await tab(profile)).ready();
    await first.join({ rounds: 1000 });
    await first.event({ type: "step" });
    const second = await tab(profile);
    await second.beginConnect();
    await second.event({ type: "state", state: "waiting-for-other-tab" });
    assert.deepEqual((await second.events()).filter((event) => event.type === "step"), []);
    await first.page.close();
    await second.event({ type: "state", state: "ready" });
    const opened = await within(10_000, "the session", second.page.evaluate(() => test.opening));
    assert.equal(opened.code, undefined, opened.message);
    assert.equal((await second.call("data.summary")).value.examples, 600, "they share the profile's data");
    assert.equal((await second.run({ rounds: 1 })).value?.reason, "rounds-done");
  });
});

test("two tabs of one profile that both take part share one ledger and never overdraw it", async () => {
  const set = { ...LOCAL, "rounds.min_clients": 1, "rounds.target_clients": 2, "rounds.deadline_ms": 3000 };
  await scene({ set }, async ({ profile: newProfile, proxy, relay, tab }) => {
    const manifest = await relay.get("/v1/tasks/mnist/manifest");
    const rho = rhoPerRound(manifest.privacy.noise_multiplier);
    // Enough for three debits; the two tabs ask for eight.
    const epsilon = (ledgerEpsilon(3 * rho, DELTA) + ledgerEpsilon(4 * rho, DELTA)) / 2;
    const options = { participants: 16, budget: { epsilon, delta: DELTA } };
    const profile = await newProfile();
    const tabs = [];
    for (let shard = 0; shard < 2; shard++) tabs.push(await (await tab(profile)).ready({ shard, ...options }));
    for (const one of tabs) await one.join({ rounds: 4 });
    const results = await within(120_000, "both ends", Promise.all(tabs.map((one) => one.joined())));
    for (const result of results) {
      assert.equal(result.code ?? result.value.reason, "budget-exhausted", result.message);
    }
    const ledgers = await Promise.all(tabs.map((one) => one.call("budget.get")));
    for (const { value } of ledgers) {
      assert.equal(value.rounds, 3, "three debits, by whichever tab");
      close(value.spent, ledgerEpsilon(3 * rho, DELTA));
      assert.ok(value.spent <= epsilon);
    }
    const frames = new Set(proxy.updates().map(({ body }) => body.toString("hex", 8, 24)));
    assert.equal(frames.size, 3, "three updates left the profile");
    const clients = new Set(proxy.updates().map(({ body }) => body.toString("hex", 24, 40)));
    assert.equal(clients.size, 2, "each tab is a client of its own");
  });
});

test("eight tabs of one profile finish a round together", async () => {
  const set = { "rounds.min_clients": 8, "rounds.target_clients": 8 };
  await scene({ set }, async ({ profile: newProfile, relay, tab }) => {
    const profile = await newProfile();
    const tabs = [];
    for (let shard = 0; shard < 8; shard++) {
      tabs.push(await (await tab(profile)).ready({ shard, examples: 50, participants: 16 }));
    }
    for (const one of tabs) await one.join({ rounds: 1 });
    await until("the round", async () => (await relay.rounds()).some((metrics) => metrics.round === 1), 60_000);
    const ends = await within(60_000, "every end", Promise.all(tabs.map((one) => one.joined())));
    for (const end of ends) assert.equal(end.value?.reason, "rounds-done", `${end.code}: ${end.message}`);
    assert.equal((await relay.published(1)).clients, 8);
  });
});
