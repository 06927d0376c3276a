// The main thread stays free while the page trains. This file measures time: `run.mjs` lets nothing run beside it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { contributed, onPage } from "./lib/page.mjs";
import { until } from "./lib/scene.mjs";

const LONGEST_TASK_MS = 50;
const ROUNDS = 3;
/** Rounds of a few seconds, with noise that the page has to say a lot about. */
const variants = {
  "on the CPU, with noise": { backend: "cpu", set: { "training.epochs": 10, "privacy.mode": "local" } },
  "on the CPU, without noise": { backend: "cpu", set: { "training.epochs": 10 } },
  "on WebGPU, with noise": { backend: "webgpu", set: { "training.epochs": 3, "privacy.mode": "local" } },
};

/** Starts recording tasks of the main thread that last over 50 ms, and shows that it sees one. */
async function observe(page) {
  await page.evaluate(() => {
    window.longTasks = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.longTasks.push(entry.duration);
    }).observe({ type: "longtask" });
    setTimeout(() => {
      const end = performance.now() + 80;
      while (performance.now() < end);
    });
  });
  await until("the long task", () => page.evaluate(() => window.longTasks.length > 0));
  await page.evaluate(() => void (window.longTasks.length = 0));
}

/** On a new page: presses Join, stays for some rounds, presses Leave; the tasks over 50 ms meanwhile. */
async function longTasks({ backend, set }) {
  let tasks;
  await onPage({ backend, set, query: "&shard=0&epsilon=1000000" }, async (page) => {
    const examples = () => page.evaluate(async () => (await window.unsaidDemo.client.data.summary()).examples);
    await until("the digits", async () => (await examples()) > 0);
    // The page is drawn, and at rest.
    await page.waitForTimeout(500);
    await observe(page);
    await page.getByRole("button", { name: "Join", exact: true }).click();
    await contributed(page, ROUNDS, 120_000);
    await page.getByRole("button", { name: "Leave", exact: true }).click();
    const summary = await page.evaluate(() => window.unsaidDemo.done);
    assert.equal(summary.reason, "aborted");
    assert.equal(summary.backend, backend);
    assert.ok(summary.rounds >= ROUNDS);
    assert.ok(await page.evaluate(() => window.unsaidDemo.events.some((event) => event.type === "step")), "it trained");
    // What came last is drawn, and an observer hears of a task only after it.
    await page.waitForTimeout(500);
    tasks = await page.evaluate(() => window.longTasks);
  });
  return tasks;
}

for (const [how, variant] of Object.entries(variants)) {
  test(`the main thread is never blocked over ${LONGEST_TASK_MS} ms while the page trains ${how}`, async (t) => {
    // A busy machine can take the processor away in the middle of a short task. Code that blocks would block every time: one
    // page of three without a long task shows that it is not the code.
    const pages = [];
    do {
      const tasks = await longTasks(variant);
      pages.push(tasks);
      t.diagnostic(tasks.length ? `tasks over ${LONGEST_TASK_MS} ms: ${tasks.map(Math.round)}` : "no long task");
    } while (Math.max(0, ...pages.at(-1)) > LONGEST_TASK_MS && pages.length < 3);
    assert.ok(Math.max(0, ...pages.at(-1)) <= LONGEST_TASK_MS, `on each of three pages: ${JSON.stringify(pages)} ms`);
  });
}
