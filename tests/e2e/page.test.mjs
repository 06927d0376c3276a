// The demo page: reachable with a keyboard, readable for everyone, in one column on a phone.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { outFolder } from "./lib/environment.mjs";
import { contributed, onPage } from "./lib/page.mjs";
import { until } from "./lib/scene.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

test("the address can start everything: load a shard, join, leave after the rounds asked for", async () => {
  await onPage({ query: "&shard=5&autojoin=1&rounds=2&examples=100" }, async (page, { relay }) => {
    assert.equal((await relay.published(2)).clients, 1);
    const summary = await until("the end", () => page.evaluate(() => window.unsaidDemo.done ?? null));
    assert.equal(summary.reason, "rounds-done");
    assert.equal((await page.evaluate(() => window.unsaidDemo.client.data.summary())).examples, 100);
  });
});

test("the bars of the local data are as tall as their counts are large", async () => {
  await onPage({ query: "&shard=0" }, async (page) => {
    await page.waitForFunction(() => document.querySelector("#data-classes i").dataset.count);
    const bars = await page.$$eval("#data-classes i", (bars) =>
      bars.map((bar) => ({ count: Number(bar.dataset.count), height: bar.getBoundingClientRect().height })),
    );
    const most = bars.reduce((most, bar) => (bar.count > most.count ? bar : most));
    for (const { count, height } of bars) {
      const expected = (most.height * count) / most.count;
      assert.ok(Math.abs(height - expected) <= 1, `${count} of ${most.count}: ${height} pixels, not ${expected}`);
    }
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

/** Draws a 3 with the mouse. */
async function drawThree(page) {
  const { x, y, width, height } = await page.locator("#pad").boundingBox();
  const upper = [[0.3, 0.25], [0.5, 0.17], [0.68, 0.28], [0.62, 0.42], [0.45, 0.5]];
  const lower = [[0.65, 0.57], [0.7, 0.73], [0.5, 0.84], [0.28, 0.76]];
  const [first, ...rest] = [...upper, ...lower].map(([across, down]) => [x + across * width, y + down * height]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of rest) await page.mouse.move(...point, { steps: 4 });
  await page.mouse.up();
}

/** For people to look at: what a visitor sees in the middle of training, with rounds on the chart. */
async function shoot(page, path) {
  const training = () => page.evaluate(() => document.querySelector("#stages [aria-current]")?.dataset.stage === "training");
  await until("a picture of training", async () => {
    if (!(await training())) return false;
    await page.screenshot({ path, fullPage: true });
    return training();
  });
}

// One tab with half the noise: what four tabs learn with the task's own, which averages out to half.
const LIKE_FOUR_TABS = { "privacy.mode": "local", "privacy.noise_multiplier": 0.05, "training.epochs": 30 };

for (const colorScheme of ["light", "dark"]) {
  for (const [device, context] of [
    ["phone", { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }],
    ["desktop", { viewport: { width: 1280, height: 900 } }],
  ]) {
    test(`the page is accessible and fits while it trains: ${device}, ${colorScheme}`, async () => {
      const query = "&shard=0&autojoin=1&epsilon=1000000";
      await onPage({ query, context: { ...context, colorScheme, bypassCSP: true }, set: LIKE_FOUR_TABS }, async (page) => {
        await contributed(page, 3);
        await drawThree(page);
        await page.waitForFunction(() => /^It reads/.test(document.querySelector("#reading").textContent));
        await shoot(page, join(outFolder, `page-${device}-${colorScheme}.png`));
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
