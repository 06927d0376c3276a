// The demo page: what it does with what a person draws and allows, what it says has left; reachable with a keyboard, readable
// for everyone, in one column on a phone.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { ledgerEpsilon, rhoPerRound } from "./lib/accountant.mjs";
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
  await page.locator("#pad").scrollIntoViewIfNeeded();
  const { x, y, width, height } = await page.locator("#pad").boundingBox();
  const upper = [[0.3, 0.25], [0.5, 0.17], [0.68, 0.28], [0.62, 0.42], [0.45, 0.5]];
  const lower = [[0.65, 0.57], [0.7, 0.73], [0.5, 0.84], [0.28, 0.76]];
  const [first, ...rest] = [...upper, ...lower].map(([across, down]) => [x + across * width, y + down * height]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const point of rest) await page.mouse.move(...point, { steps: 4 });
  await page.mouse.up();
}

test("a drawing that is labelled is local data, and is trained on", async () => {
  await onPage({}, async (page, { relay, proxy }) => {
    const said = (text) => page.waitForFunction((text) => document.querySelector("#teach-said").textContent === text, text);
    const add = page.getByRole("button", { name: "Add to my data" });
    await add.click();
    await said("Draw something first.");
    for (const [label, examples] of [["3", "1 example"], ["7", "2 examples"]]) {
      await drawThree(page);
      await add.click();
      await said("Say which digit it is.");
      await page.locator(`#digits label:has(input[value="${label}"])`).click();
      await add.click();
      await said(`Added a ${label}. ${examples} now.`);
      await page.waitForFunction(() => !document.querySelector("#pad-empty").hidden, null, { timeout: 5000 });
    }
    const { examples, perClass } = await page.evaluate(() => window.unsaidDemo.client.data.summary());
    assert.equal(examples, 2);
    assert.deepEqual(perClass, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    assert.equal(proxy.updates().length, 0, "nothing was sent");

    // They survive a reload, and are what a round trains on.
    await page.reload();
    await page.waitForFunction(() => window.unsaidDemo?.client, null, { timeout: 20_000 });
    await page.waitForFunction(() => document.querySelector("#data-count").textContent === "2");
    await page.getByRole("button", { name: "Join", exact: true }).click();
    await contributed(page, 1);
    assert.equal((await relay.published(1)).clients, 1);
    await page.getByRole("button", { name: "Leave", exact: true }).click();
    await page.evaluate(() => window.unsaidDemo.done);
  });
});

/** The name → text of a list of facts. */
const facts = (page, list) =>
  page.$$eval(`${list} > div`, (rows) => Object.fromEntries(rows.map((row) => [...row.children].map((cell) => cell.textContent))));

test("what the page says has left is what has left: size, coordinates, terms, model and bytes", async () => {
  const query = "&shard=0&autojoin=1&rounds=1&epsilon=1000000";
  await onPage({ query, set: { "privacy.mode": "local" } }, async (page, { proxy, relay }) => {
    await contributed(page, 1);
    await page.evaluate(() => window.unsaidDemo.done);
    const [{ body: frame }, ...more] = proxy.updates();
    assert.deepEqual(more, []);
    // The frame's layout is that of PROTOCOL.md, “Update frame”.
    const [width, count] = [frame[6], frame.readUInt32LE(112)];
    assert.equal(frame.length, 116 + width * count);
    const shown = await facts(page, "#left-facts");
    assert.equal(shown.Size, `${(frame.length / 1e3).toFixed(1)} kB`);
    assert.equal(shown.Holds, `${count.toLocaleString("en")} coordinates of ${width} bytes`);
    assert.equal(shown.To, `${new URL(page.url()).host}, the relay`);
    const manifest = await relay.get("/v1/tasks/mnist/manifest");
    const { noise_multiplier: z } = manifest.privacy;
    const sigma = z * manifest.update.clip_l2;
    assert.ok(Math.abs(Number(/[\d.]+/.exec(shown.Noise)[0]) / sigma - 1) < 0.01, `${shown.Noise}, ${sigma}`);

    const fields = Object.fromEntries(
      await page.$$eval("#frame tr", (rows) => rows.map((row) => [row.dataset.field, row.lastElementChild.textContent])),
    );
    const hex = (from, length) => [...frame.subarray(from, from + length)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const layout = [["magic", 4], ["version", 2], ["width", 1], ["reserved", 1], ["update id", 16], ["client id", 16], ["manifest", 32], ["model", 32], ["round", 8], ["count", 4]];
    let offset = 0;
    for (const [name, length] of layout) {
      assert.equal(fields[name], hex(offset, length), name);
      offset += length;
    }
    assert.equal(fields.coordinates, hex(116, 16));
    assert.match(await page.textContent("#frame-title"), new RegExp(`The first 132 of ${frame.length.toLocaleString("en")} bytes`));

    // The histogram of what is sent counts the very coordinates of the frame.
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
    await page.waitForFunction(() => document.querySelectorAll("#hist-rows tr").length > 0);
    const rows = await page.$$eval("#hist-rows tr", (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
    const number = (text) => Number(text.replaceAll(",", "").replace("−", "-"));
    const after = rows.reduce((sum, [, , , cell]) => sum + number(cell), 0);
    const before = rows.reduce((sum, [, , cell]) => sum + number(cell), 0);
    assert.deepEqual([before, after], [count, count]);
    const sent = await page.$$eval("#transfers tr", (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
    const updates = sent.filter(([, what, , outcome]) => /update/i.test(what) && outcome === "counted");
    assert.deepEqual(updates.map(([, , bytes]) => bytes), [shown.Size]);
  });
});

test("a round above the limit is not begun; the person may raise the limit, and pays what the page said", async () => {
  await onPage({ query: "&shard=0&examples=50", set: { "privacy.mode": "local" } }, async (page, { proxy, relay }) => {
    await page.waitForFunction(() => document.querySelector("#data-count").textContent === "50");
    const join = page.getByRole("button", { name: "Join", exact: true });
    await join.click();
    await page.waitForFunction(() => !document.querySelector("#raise").hidden);
    const before = await page.evaluate(() => window.unsaidDemo.client.budget.get());
    assert.equal(before.spent, 0);
    assert.ok(before.ifOneMore > before.epsilon, "one round costs more than the limit");
    const { privacy } = await relay.get("/v1/tasks/mnist/manifest");
    const cost = ledgerEpsilon(rhoPerRound(privacy.noise_multiplier), before.delta);
    assert.ok(Math.abs(before.ifOneMore / cost - 1) < 1e-3, `${before.ifOneMore}, ${cost}`);

    // Staying out: nothing changes.
    await page.getByRole("button", { name: "Stay out" }).click();
    assert.ok(await page.evaluate(() => document.querySelector("#raise").hidden));
    assert.equal(proxy.updates().length + proxy.to("/v1/tasks/mnist/check-in", "POST").length, 0, "the relay was not asked");
    assert.equal((await page.evaluate(() => window.unsaidDemo.client.budget.get())).epsilon, before.epsilon);

    // A limit that pays for no round cannot be allowed; one that pays for one round is taken at its word.
    await join.click();
    await page.fill("#raise-value", String(Math.floor(cost / 2)));
    assert.ok(await page.isDisabled("#raise-go"));
    const limit = Math.ceil(cost) + 1;
    await page.fill("#raise-value", String(limit));
    assert.match(await page.textContent("#raise-pays"), /pays for about 1 update,/);
    await page.click("#raise-go");
    await contributed(page, 1);
    // The second round is above the new limit, and so the run ends by itself.
    await page.waitForFunction(() => !document.querySelector("#raise").hidden, null, { timeout: 60_000 });
    const after = await page.evaluate(() => window.unsaidDemo.client.budget.get());
    assert.equal(after.epsilon, limit);
    assert.equal(after.rounds, 1);
    assert.ok(Math.abs(after.spent / cost - 1) < 1e-3, `${after.spent}, ${cost}`);
    assert.equal(proxy.updates().length, 1);
  });
});

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
