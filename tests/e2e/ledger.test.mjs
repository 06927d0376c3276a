// The ledger in the person's hands: what it says is saved word for word, erasing asks once more and forgets who this browser was, and a
// daily limit holds.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { contributed, onPage } from "./lib/page.mjs";
import { scene, within } from "./lib/scene.mjs";

const LOCAL = { "privacy.mode": "local", "privacy.noise_multiplier": 4 };
const client = ({ body }) => body.toString("hex", 24, 40);

test("the ledger is saved as it is stored, and erased only when asked twice", async () => {
  await onPage({ query: "&shard=0&examples=50&autojoin=1&rounds=2&epsilon=1000", set: LOCAL }, async (page, { proxy }) => {
    await contributed(page, 2);
    await page.evaluate(() => window.unsaidDemo.done);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#ledger-export").click()]);
    assert.equal(download.suggestedFilename(), "unsaid-ledger.json");
    const saved = await readFile(await download.path(), "utf8");
    assert.equal(saved, await page.evaluate(() => window.unsaidDemo.client.budget.export()), "word for word");
    // It names every update that left, by its id, its round and its hash.
    assert.equal(proxy.updates().length, 2);
    for (const { body } of proxy.updates()) {
      const hash = Buffer.from(await crypto.subtle.digest("SHA-256", body)).toString("hex");
      assert.ok(saved.includes(hash) && saved.includes(body.toString("hex", 8, 24)), "the update is in the ledger");
    }
    const budget = () => page.evaluate(() => window.unsaidDemo.client.budget.get());
    const before = await budget();
    assert.deepEqual([before.rounds, before.spent > 0], [2, true]);
    // What ε means is said of this very ledger.
    assert.match(await page.textContent("#epsilon-means"), /Your limit is ε = 1,000\..* practically certain .* The 2 updates that you sent are booked with ε = /);

    const erase = page.locator("#ledger-erase");
    await erase.click();
    assert.match(await page.textContent("#ledger-said"), /What you sent stays sent/);
    await page.locator("#ledger-keep").click();
    assert.deepEqual(await budget(), before, "nothing happened");
    await erase.click();
    assert.equal(await erase.textContent(), "Yes, erase it");
    await erase.click();
    await page.waitForFunction(() => /are erased/.test(document.querySelector("#ledger-said").textContent));
    const after = await budget();
    assert.deepEqual([after.rounds, after.spent], [0, 0]);
    assert.match(await page.textContent("#epsilon-means"), /Nothing was sent yet that has a cost\./);
    assert.equal(await page.textContent("#data-count"), "50", "the data stay");

    // The relay sees somebody new.
    await page.evaluate((epsilon) => window.unsaidDemo.client.budget.set({ epsilon, delta: 1e-5 }), 1000);
    await page.evaluate(() => window.unsaidDemo.client.join({ rounds: 1 }));
    const clients = proxy.updates().map(client);
    assert.equal(clients.length, 3);
    assert.equal(clients[0], clients[1]);
    assert.notEqual(clients[2], clients[0]);
    assert.equal((await budget()).rounds, 1);
  });
});

test("as many rounds are paid for in a day as the page allows, in all sessions together", async () => {
  await scene({ set: LOCAL }, async ({ profile: newProfile, proxy, tab }) => {
    const profile = await newProfile();
    const options = { floors: { minCohort: 1, maxRoundsPerDay: 2 }, budget: { epsilon: 1000, delta: 1e-5 } };
    const one = await (await tab(profile)).ready({ examples: 50, ...options });
    const run = await within(60_000, "the end", one.run({ rounds: 5 }));
    assert.deepEqual([run.value?.rounds, run.value?.reason], [2, "daily-limit"], run.message);
    // Another session of the same browser is as late.
    await one.load(proxy.origin);
    assert.equal((await one.connect(options)).code, undefined);
    const again = await within(60_000, "the refusal", one.run({ rounds: 1 }));
    assert.equal(again.code ?? again.value.reason, "daily-limit", again.message);
    assert.equal(proxy.updates().length, 2);
    // Who allows more goes on.
    await one.load(proxy.origin);
    assert.equal((await one.connect({ ...options, floors: { minCohort: 1, maxRoundsPerDay: 3 } })).code, undefined);
    assert.equal((await one.run({ rounds: 1 })).value?.reason, "rounds-done");
    assert.equal(proxy.updates().length, 3);
  });
});
