// The relay goes away, tabs go away, workers crash: each has its outcome.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { scene, until, within } from "./lib/scene.mjs";

/** Long enough to be interrupted. */
const LONG = { "training.epochs": 200 };
/** Rounds that the ledger has to pay for. */
const NOISY = { "privacy.mode": "local" };
const PLENTY = { epsilon: 1e6, delta: 1e-5 };
/** How long a client may try before it reports that the relay is gone. */
const GIVE_UP_MS = 150_000;

const done = (result) => assert.equal(result.value?.reason, "rounds-done", `${result.code}: ${result.message}`);
const isUpload = (request) => request.path.endsWith("/updates");

describe("faults", { concurrency: 2 }, () => {
  // These mostly wait, so they wait together, and the others go on beside them.
  describe("giving up", { concurrency: true }, () => {
    test("a relay that is down at the start is reported", async () => {
      await scene({}, async ({ proxy, tab }) => {
        const one = await tab();
        // The page is another server's business: only the relay is down.
        proxy.rule = (request) => (request.path.startsWith("/v1/") ? "refuse" : "pass");
        const opened = await within(GIVE_UP_MS, "giving up", one.connect());
        // A session may open without its relay; then the first thing that needs the relay says so.
        const failed = opened.code ? opened : await within(GIVE_UP_MS, "giving up", one.call("manifest"));
        assert.equal(failed.code, "relay-unreachable", failed.message);
        // Once it is up, the same page can take part.
        proxy.rule = () => "pass";
        await one.load(proxy.origin);
        await one.ready();
        done(await one.run({ rounds: 1 }));
      });
    });

    test("a relay that stays away is reported after a bounded number of identical attempts", async () => {
      await scene({}, async ({ proxy, tab }) => {
        const one = await (await tab()).ready();
        proxy.rule = (request) => (isUpload(request) ? "refuse" : "pass");
        const result = await within(GIVE_UP_MS, "giving up", one.run({ rounds: 1 }));
        assert.equal(result.code, "relay-unreachable", JSON.stringify(result));
        const sent = proxy.updates();
        assert.ok(sent.length > 1 && sent.length < 50, `${sent.length} attempts`);
        assert.equal(new Set(sent.map((request) => request.sha256)).size, 1);
      });
    });
  });

  test("a relay that is down during training costs nothing: the update is sent when it is back", async () => {
    await scene({ set: LONG }, async ({ proxy, relay, tab }) => {
      const one = await (await tab()).ready();
      await one.join({ rounds: 1 });
      await one.event({ type: "step" });
      proxy.target = null;
      await one.event({ type: "upload", status: "retrying" }, 60_000);
      proxy.target = relay.origin;
      done(await within(GIVE_UP_MS, "the end of the round", one.joined()));
      assert.equal((await relay.published(1)).clients, 1);
    });
  });

  test("an upload that fails is retried with identical bytes", async () => {
    await scene({ set: NOISY }, async ({ proxy, relay, tab }) => {
      const one = await (await tab()).ready({ budget: PLENTY });
      let uploads = 0;
      // The first never arrives; of the second only the answer is lost, so that the third is a duplicate.
      const fates = ["refuse", "lose-answer"];
      proxy.rule = (request) => (isUpload(request) ? (fates[uploads++] ?? "pass") : "pass");
      done(await one.run({ rounds: 1 }));
      const sent = proxy.updates();
      assert.equal(sent.length, 3);
      assert.equal(new Set(sent.map((request) => request.sha256)).size, 1, "every attempt has the same bytes");
      assert.ok(sent[1].at - sent[0].at >= 100, "it waits before it tries again");
      const statuses = (await one.events("upload")).map((event) => event.status).filter((status) => status !== "sending");
      assert.deepEqual(statuses, ["retrying", "retrying", "duplicate"]);
      assert.equal((await relay.published(1)).clients, 1, "it is counted once");
      const budget = await one.call("budget.get");
      assert.equal(budget.value.rounds, 1, "it is debited once");
    });
  });

  test("a relay killed in the middle of a round counts every acknowledged update once", async () => {
    const set = { "rounds.min_clients": 4, "rounds.target_clients": 4 };
    await scene({ set }, async ({ proxy, relay, tab }) => {
      const tabs = [];
      for (let shard = 0; shard < 4; shard++) tabs.push(await (await tab()).ready({ shard }));
      // Two updates are acknowledged; the other two are held back until the relay is dead.
      let uploads = 0;
      let release;
      const held = new Promise((resolve) => (release = resolve));
      proxy.rule = (request) => (isUpload(request) && ++uploads > 2 ? held : "pass");
      for (const one of tabs) await one.join({ rounds: 1 });
      await until("four uploads", () => proxy.updates().length >= 4);
      await until("two acknowledged", () => proxy.updates().filter((update) => update.status === 200).length === 2);
      await relay.kill();
      proxy.target = null;
      release("refuse");
      await relay.restart();
      proxy.rule = () => "pass";
      proxy.target = relay.origin;
      for (const one of tabs) done(await within(GIVE_UP_MS, "the end of the round", one.joined()));
      const metrics = await relay.published(1);
      assert.equal(metrics.clients, 4);
      assert.equal(metrics.checked_in, 4);
      const frames = new Map(proxy.updates().map(({ body }) => [body.toString("hex", 8, 24), body.length]));
      assert.equal(frames.size, 4, "four updates, whatever the attempts");
      assert.equal(metrics.bytes_up, [...frames.values()].reduce((sum, length) => sum + length));
    });
  });

  test("a tab closed in the middle of a round does not hold the round up", async () => {
    const deadline = 6000;
    const set = { "rounds.min_clients": 1, "rounds.target_clients": 3, "rounds.deadline_ms": deadline };
    await scene({ set }, async ({ proxy, relay, tab }) => {
      const tabs = [];
      for (let shard = 0; shard < 3; shard++) tabs.push(await (await tab()).ready({ shard }));
      // The third tab's update is caught on its way, and the tab closed.
      proxy.rule = (request) => {
        const third = isUpload(request) && proxy.updates().length === 3;
        return third ? new Promise(() => {}) : "pass";
      };
      for (const one of tabs) await one.join({ rounds: 1 });
      await until("three uploads", () => proxy.updates().length >= 3);
      const accepted = await until("two accepted", async () => {
        const events = await Promise.all(tabs.map((one) => one.events("upload")));
        const each = events.map((uploads) => uploads.some((event) => event.status === "accepted"));
        return each.filter(Boolean).length === 2 && each;
      });
      await tabs[accepted.indexOf(false)].page.close();
      const metrics = await relay.published(1, 3 * deadline);
      assert.equal(metrics.clients, 2);
      assert.equal(metrics.checked_in, 3);
      assert.ok(metrics.duration_ms >= deadline && metrics.duration_ms < 2 * deadline, `${metrics.duration_ms} ms`);
    });
  });

  test("a panic in the worker is a typed error, and the client goes on in a new worker", async () => {
    await scene({ set: LONG }, async ({ relay, tab }) => {
      const one = await (await tab()).ready();
      await one.join({ rounds: 1 });
      await one.event({ type: "step" });
      const [panicked, joined] = await within(
        20_000,
        "the crash",
        Promise.all([one.page.evaluate(() => test.panic()), one.joined()]),
      );
      // The panic's own words, which come from Rust by another way than the trap that follows.
      const words = /^the worker crashed: a panic was asked for$/;
      for (const { code, message } of [panicked, joined]) {
        assert.equal(code, "crashed");
        assert.match(message, words);
      }
      const restarted = await one.event({ type: "restarted" });
      assert.equal(`the worker crashed: ${restarted.message}`, panicked.message);
      const summary = await one.call("data.summary");
      assert.equal(summary.value?.examples, 600, "the local data is still there");
      done(await within(120_000, "a round after the crash", one.run({ rounds: 1 })));
      assert.equal((await relay.published(1)).clients, 1);
    });
  });

  test("leaving in the middle of training is quick, and sends nothing", async (t) => {
    await scene({ set: { ...LONG, ...NOISY } }, async ({ proxy, tab }) => {
      const one = await (await tab()).ready({ budget: PLENTY });
      await one.join({ rounds: 1 });
      await one.event({ type: "step" });
      const left = await one.abort();
      assert.equal(left.value?.reason, "aborted", `${left.code}: ${left.message}`);
      t.diagnostic(`left after ${left.tookMs.toFixed(0)} ms`);
      assert.ok(left.tookMs < 500, `${left.tookMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      assert.equal(proxy.updates().length, 0);
      assert.equal((await one.call("budget.get")).value.rounds, 0, "nothing was debited");
      // A signal that has fired before is an error of the call.
      const again = await one.page.evaluate(async () => {
        try {
          await test.client.join({ signal: AbortSignal.abort() });
        } catch (error) {
          return error.code;
        }
      });
      assert.equal(again, "aborted");
    });
  });
});
