// “What could the relay see?”: the attack on one's own digit, on the page and as a library function. The control of each test is the
// same attack on the same digit without protection.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { outFolder } from "./lib/environment.mjs";
import { contributed, onPage } from "./lib/page.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** Plays the attacker on a loaded digit, and reads what the page says of each protection. */
async function attack(page) {
  await page.waitForFunction(() => document.querySelector("#data-count").textContent === "600");
  await page.locator("#seen-loaded").click();
  await page.waitForFunction(() => !document.querySelector("#seen-loaded").disabled && !document.querySelector("#seen-result").hidden, null, { timeout: 60_000 });
  const rows = await page.$$eval("#seen-found figure", (figures) =>
    figures.map((figure) => ({
      protection: figure.dataset.protection ?? "own",
      alt: figure.querySelector("canvas").getAttribute("aria-label"),
      facts: Object.fromEntries([...figure.querySelectorAll("dl > div")].map((row) => [...row.children].map((cell) => cell.textContent))),
      pixels: [...figure.querySelector("canvas").getContext("2d").getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 === 0),
    })),
  );
  return { rows: Object.fromEntries(rows.map((row) => [row.protection, row])), said: await page.textContent("#seen-said") };
}

/** PSNR of two pictures as they are drawn, in dB. */
function psnr(a, b) {
  const error = a.reduce((sum, value, at) => sum + (value - b[at]) ** 2, 0) / a.length;
  return 10 * Math.log10(255 ** 2 / error);
}

test("without protection the digit is found, clipped too; behind clipping and noise it is not", async () => {
  await onPage({ query: "&shard=0", set: { "privacy.mode": "local", "privacy.noise_multiplier": 1 } }, async (page, { proxy }) => {
    const { rows, said } = await attack(page);
    const { own, none, clip, noise } = rows;
    for (const open of [none, clip]) {
      assert.ok(psnr(own.pixels, open.pixels) > 25, `${open.protection}: ${psnr(own.pixels, open.pixels)} dB`);
      assert.match(open.facts["Label read"], /right$/);
      assert.match(open.alt, /the digit, as it is$/);
    }
    const hidden = psnr(own.pixels, noise.pixels);
    assert.ok(hidden < 12, `${hidden} dB`);
    assert.match(noise.alt, /nothing like the digit$/);
    // What the page says is what it draws, to the rounding of its pixels.
    const [told] = /[\d.]+/.exec(noise.facts.Likeness);
    assert.ok(Math.abs(Number(told) - hidden) < 0.2, `${told} ${hidden}`);
    assert.match(said, /Clipping only shortens the change: it hides nothing\. Behind this task’s noise the attacker gets nothing like the digit\./);
    assert.equal(proxy.updates().length + proxy.to("/v1/tasks/mnist/check-in", "POST").length, 0, "nothing is sent for it");
    const budget = await page.evaluate(() => window.unsaidDemo.client.budget.get());
    assert.deepEqual([budget.spent, budget.rounds], [0, 0]);
  });
});

test("a task without noise has no third picture, and noise that is too weak is not praised", async () => {
  await onPage({ query: "&shard=0" }, async (page) => {
    const { rows, said } = await attack(page);
    assert.deepEqual(Object.keys(rows), ["own", "none", "clip"]);
    assert.match(said, /This task adds no noise, so that is what its relay could see\.$/);
  });
  await onPage({ query: "&shard=0", set: { "privacy.mode": "local", "privacy.noise_multiplier": 0.0001 } }, async (page) => {
    const { rows, said } = await attack(page);
    assert.ok(psnr(rows.own.pixels, rows.noise.pixels) > 25, "such noise hides nothing");
    assert.match(said, /by its ε this noise protects nobody/);
  });
});

for (const colorScheme of ["light", "dark"]) {
  for (const [device, context] of [
    ["phone", { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }],
    ["desktop", { viewport: { width: 1280, height: 900 } }],
  ]) {
    test(`the pictures are accessible and fit: ${device}, ${colorScheme}`, async () => {
      const set = { "privacy.mode": "local" };
      await onPage({ query: "&shard=0", context: { ...context, colorScheme, bypassCSP: true }, set }, async (page) => {
        await attack(page);
        await page.locator("section:has(#seen-title) summary").click();
        await page.locator("section:has(#seen-title)").screenshot({ path: join(outFolder, `seen-${device}-${colorScheme}.png`) });
        const [wide, room] = await page.evaluate(() => {
          const { scrollWidth, clientWidth } = document.documentElement;
          return [scrollWidth, clientWidth];
        });
        assert.ok(wide <= room, `it scrolls sideways: ${wide} pixels in ${room}`);
        await page.evaluate(await readFile(axe, "utf8"));
        const { violations } = await page.evaluate(() => globalThis.axe.run("section:has(#seen-title)"));
        assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 100)).join(" ")}`), []);
      });
    });
  }
}

test("a drawing is attacked too, with the keyboard alone, and a tab that has trained goes on", async () => {
  await onPage({ query: "&shard=0&examples=50&autojoin=1&rounds=1" }, async (page) => {
    await contributed(page, 1);
    await page.locator("#seen-drawn").focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#seen-said").textContent.startsWith("Draw a digit"));
    await page.locator("#pad").focus();
    await page.keyboard.press("Space");
    for (let step = 0; step < 16; step++) await page.keyboard.press(step % 2 ? "ArrowDown" : "ArrowRight");
    await page.keyboard.press("Space");
    await page.locator("#seen-label").selectOption("4");
    await page.locator("#seen-drawn").focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll("#seen-found figure").length === 3, null, { timeout: 60_000 });
    assert.match(await page.textContent("#seen-model"), /round 1\.$/);
    assert.match(await page.getAttribute("#seen-found [data-protection=none] canvas", "aria-label"), /the digit, as it is$/);
  });
});
