// A relay that adds the noise itself: what the client books, what the page says, and that a tree over rounds lets nobody in too soon.
import assert from "node:assert/strict";
import { test } from "node:test";

import { ledgerEpsilon, rhoPerRound } from "./lib/accountant.mjs";
import { contributed, onPage } from "./lib/page.mjs";
import { scene, until, within } from "./lib/scene.mjs";

const DELTA = 1e-5;
const CENTRAL = {
  "privacy.mode": "central",
  "privacy.noise_multiplier": 2,
  "privacy.adjacency": "add-remove",
  "privacy.delta": 1e-5,
  "rounds.min_clients": 2,
  "rounds.target_clients": 2,
};
const TREE = {
  ...CENTRAL,
  "privacy.mechanism": "tree-aggregation",
  "privacy.tree.restart_every": 4,
  "privacy.tree.min_separation": 2,
};
const TRUSTING = { floors: { minCohort: 1, trustRelay: true }, budget: { epsilon: 1e6, delta: DELTA } };

const close = (found, expected) => assert.ok(Math.abs(found / expected - 1) < 1e-3, `${found}, not ${expected}`);

/** ε of ρ at δ as the relay tells it: at all of δ, where a ledger has its share of it. */
const told = (rho) => ledgerEpsilon(rho, (8 / 7) * DELTA);

test("two tabs and a relay that adds the noise: each books replace-one, the relay tells add/remove, and who does not trust it stays out", async () => {
  await scene({ set: CENTRAL }, async ({ relay, proxy, tab }) => {
    const wary = await tab();
    const opened = await wary.connect({ floors: { minCohort: 1 } });
    const failed = opened.code ? opened : await wary.call("manifest");
    assert.equal(failed.code, "manifest-below-floor", failed.message);
    assert.match(failed.message, /trustRelay/);
    assert.equal(proxy.to("/v1/tasks/mnist/check-in").length, 0);

    const tabs = [];
    for (let shard = 0; shard < 2; shard++) tabs.push(await (await tab()).ready({ shard, examples: 100, ...TRUSTING }));
    for (const one of tabs) await one.join({ rounds: 2 });
    for (const one of tabs) assert.equal((await within(60_000, "an end", one.joined())).value?.reason, "rounds-done");
    const rho = rhoPerRound(2);
    for (const one of tabs) {
      const { privacy } = (await one.call("manifest")).value;
      assert.equal(privacy.mode, "central");
      close(privacy.epsilonPerRound, ledgerEpsilon(rho, DELTA));
      close((await one.call("budget.get")).value.spent, ledgerEpsilon(2 * rho, DELTA));
      // The frame has no noise of its own.
      const [update] = await one.events("update");
      assert.equal(update.sigmaSteps, 0);
      assert.deepEqual(update.histogram.before, update.histogram.after);
      const rounds = (await one.events("round")).map(({ metrics }) => metrics).filter(({ round }) => round > 0);
      for (const { round, epsilon } of rounds) close(epsilon, told((round * rho) / 4));
    }
    assert.equal((await relay.published(2)).clients, 2);
  });
});

test("in a tree a client waits for its separation, and books all nodes that an update is in", async () => {
  await scene({ set: TREE }, async ({ relay, tab }) => {
    const tabs = [];
    for (let shard = 0; shard < 4; shard++) tabs.push(await (await tab()).ready({ shard, examples: 50, ...TRUSTING }));
    // Two make a round, and it is the others' turn; whoever asks too soon is told to wait.
    for (const one of tabs) await one.join({ rounds: 2 });
    for (const one of tabs) assert.equal((await within(90_000, "an end", one.joined())).value?.reason, "rounds-done");
    const last = await relay.published(4);
    assert.equal(last.clients, 2);
    // Nodes of 1, 2 and 4 rounds, with at most 1, 1 and 2 updates of a client: 2 + 2 + 4 squares for two of four rounds, or for the relay's
    // ledger; 1 + 1 + 2 for each update in a client's own.
    close(last.privacy.rho, 8 / (2 * 4));
    for (const one of tabs) {
      const counted = (await one.events("contribution")).map(({ round }) => round);
      assert.equal(counted.length, 2);
      assert.ok(counted[1] - counted[0] >= 2, `counted in ${counted}`);
      // An update that came too late was paid for, too.
      const { spent, rounds: debits } = (await one.call("budget.get")).value;
      assert.ok(debits >= 2);
      close(spent, ledgerEpsilon(debits * 4 * rhoPerRound(2), DELTA));
    }
  });
});

test("the page says whom one has to trust, under which adjacency, and what rounds cost", async () => {
  for (const [set, wait] of [[CENTRAL, false], [TREE, true]]) {
    const one = { ...set, "rounds.target_clients": 2, "rounds.min_clients": 2 };
    await onPage({ query: "&shard=0&examples=50&autojoin=1&rounds=1&epsilon=1000000", set: one }, async (page, { relay, proxy }) => {
      const context = page.context();
      const other = await context.browser().newContext();
      const second = await other.newPage();
      await second.goto(`${proxy.origin}/?task=mnist&backend=cpu&shard=1&examples=50&autojoin=1&rounds=1&epsilon=1000000`);
      await contributed(page, 1);
      await relay.published(1);
      await other.close();
      const terms = await page.textContent("#terms");
      assert.match(terms, /You have to trust the relay: it sees your clipped update as it is/);
      assert.match(terms, /\(add\/remove\)/);
      assert.equal(/let in again 2 rounds later, and a new tree begins every 4 rounds/.test(terms), wait);
      assert.match(await page.textContent("#budget-alarm"), /The relay must be trusted\./);
      const { privacy } = await page.evaluate(() => window.unsaidDemo.client.manifest());
      const [booked] = /(?<=ε = )[\d.,]+/.exec(terms);
      assert.ok(Math.abs(Number(booked.replaceAll(",", "")) / privacy.epsilonPerRound - 1) < 0.01, `${booked} ${privacy.epsilonPerRound}`);
      assert.match(await page.textContent("#per-round"), /not towards the relay$/);
      await page.locator("#rounds-details summary").click();
      const { privacy: figures } = await relay.published(1);
      const cell = await until("the round's row", async () => {
        const rows = await page.$$eval("#rounds tr", (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
        return rows.find(([round]) => round === "1")?.[6];
      });
      assert.ok(await page.isVisible("#rounds-epsilon"));
      assert.ok(Math.abs(Number(cell) / figures.epsilon - 1) < 0.01, `${cell} ${figures.epsilon}`);
    });
  }
});
