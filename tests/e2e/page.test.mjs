// The demo page: smooth while it trains, reachable with a keyboard, readable for everyone, in one column on a phone.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { test } from "node:test";

import { watch } from "./lib/browser.mjs";
import { pageFolder } from "./lib/environment.mjs";
import { scene, until, within } from "./lib/scene.mjs";

const LONGEST_TASK_MS = 50;
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** Runs `body` with an open demo page. */
function onPage({ query = "", context = {}, set = {} }, body) {
  return scene({ page: pageFolder(), set }, async ({ browser, proxy, relay }) => {
    const page = await (await browser.newContext(context)).newPage();
    const troubles = watch(page);
    await page.goto(`${proxy.origin}/?task=mnist&backend=cpu${query}`);
    await page.waitForFunction(() => window.unsaidDemo?.client, null, { timeout: 20_000 });
    await body(page, { relay, troubles });
    assert.deepEqual(troubles, [], "no errors on the console");
  });
}

/** Starts recording tasks of the main thread that last over 50 ms. */
const observe = (page) =>
  page.evaluate(() => {
    window.longTasks = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.longTasks.push(entry.duration);
    }).observe({ type: "longtask" });
  });

test("the main thread is never blocked over 50 ms while the page trains", async (t) => {
  await onPage({ query: "&shard=0", set: { "training.epochs": 10 } }, async (page) => {
    await page.waitForTimeout(2000);
    await observe(page);
    // The observer sees a task that is too long.
    await page.evaluate(() => {
      setTimeout(() => {
        const end = performance.now() + 80;
        while (performance.now() < end);
      });
    });
    await until("the long task", () => page.evaluate(() => window.longTasks.length > 0));
    await page.evaluate(() => void (window.longTasks.length = 0));
    // A busy machine can take the processor away in the middle of a short task. Code that blocks would block every time: one
    // run of three without a long task shows that it is not the code.
    const runs = [];
    do {
      await page.evaluate(() => void (window.longTasks.length = 0));
      const trained = page.evaluate(async () => {
        const { client } = window.unsaidDemo;
        const summary = await client.join({ rounds: 3 });
        return { summary, steps: window.unsaidDemo.events.filter((event) => event.type === "step").length };
      });
      const { summary, steps } = await within(120_000, "three rounds", trained);
      assert.equal(summary.reason, "rounds-done");
      assert.ok(steps > 0, "it trained");
      await page.waitForTimeout(500);
      runs.push(await page.evaluate(() => window.longTasks));
      const tasks = runs.at(-1).map(Math.round);
      t.diagnostic(tasks.length ? `tasks over 50 ms: ${tasks}` : "no task over 50 ms");
    } while (Math.max(0, ...runs.at(-1)) > LONGEST_TASK_MS && runs.length < 3);
    assert.ok(Math.max(0, ...runs.at(-1)) <= LONGEST_TASK_MS, `in each of three runs: ${JSON.stringify(runs)} ms`);
  });
});

test("the address can start everything: load a shard, join, leave after the rounds asked for", async () => {
  await onPage({ query: "&shard=5&autojoin=1&rounds=2&examples=100" }, async (page, { relay }) => {
    assert.equal((await relay.published(2)).clients, 1);
    const summary = await until("the end", () => page.evaluate(() => window.unsaidDemo.done ?? null));
    assert.equal(summary.reason, "rounds-done");
    assert.equal((await page.evaluate(() => window.unsaidDemo.client.data.summary())).examples, 100);
  });
});

test("everything that can be done can be done with the keyboard", async () => {
  await onPage({}, async (page) => {
    const reached = new Set();
    for (let press = 0; press < 80; press++) {
      await page.keyboard.press("Tab");
      const name = await page.evaluate(() => {
        const element = document.activeElement;
        if (!element || element === document.body) return null;
        const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
        const visible = (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
        element.dataset.reached = "true";
        return `${element.textContent?.trim() || element.getAttribute("aria-label")}|${visible}`;
      });
      if (name) reached.add(name);
    }
    const names = [...reached];
    assert.ok(names.some((name) => /join/i.test(name)), `join is reached: ${names.join(", ")}`);
    const blind = names.filter((name) => name.endsWith("|false"));
    assert.deepEqual(blind, [], "focus is always visible");
    const missed = await page.evaluate(() =>
      [...document.querySelectorAll("button, a[href], input, select, textarea, summary")]
        .filter((element) => element.checkVisibility() && !element.disabled && !element.dataset.reached)
        .filter((element) => element.type !== "radio" && !element.closest("[inert]"))
        .map((element) => element.outerHTML.slice(0, 120)),
    );
    assert.deepEqual(missed, [], "every control is reached");
  });
});

for (const colorScheme of ["light", "dark"]) {
  for (const [device, viewport] of [
    ["phone", { width: 390, height: 844 }],
    ["desktop", { width: 1280, height: 900 }],
  ]) {
    test(`the page is accessible and fits: ${device}, ${colorScheme}`, async () => {
      const context = { colorScheme, viewport, bypassCSP: true };
      await onPage({ query: "&shard=0&autojoin=1&rounds=1", context }, async (page) => {
        await until("the end", () => page.evaluate(() => window.unsaidDemo.done ?? null), 60_000);
        await page.waitForTimeout(500);
        const [wide, room] = await page.evaluate(() => {
          const { scrollWidth, clientWidth } = document.documentElement;
          return [scrollWidth, clientWidth];
        });
        assert.ok(wide <= room, `it scrolls sideways: ${wide} pixels in ${room}`);
        await page.evaluate(await readFile(axe, "utf8"));
        const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
        assert.ok(passes.length > 10, "axe looked at the page");
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 100)).join(" ")}`);
        assert.deepEqual(found, []);
      });
    });
  }
}
