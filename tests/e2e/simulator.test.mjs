// The simulator's program: its report can be read by everyone, on a desk and on a phone, and what cannot be simulated is said.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

import { launch } from "./lib/browser.mjs";
import { dataFolder, outFolder, relayProgram, root } from "./lib/environment.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

function simulate(...words) {
  const task = join(root, "server/tasks/mnist-lr.toml");
  return promisify(execFile)(relayProgram(), ["simulate", task, "--data", dataFolder(), ...words]);
}

test("a report says what it shows, in both colours, on a desk and on a phone", async () => {
  const folder = await mkdtemp(join(tmpdir(), "unsaid-report-"));
  const browser = await launch({ webgpu: false });
  try {
    const path = join(folder, "report.html");
    const words = ["--clients", "12", "--cohort", "10", "--rounds", "4", "--baselines", "centralised,local,proxy", "--html", path];
    const { stdout, stderr } = await simulate(...words);
    const trained = ["centralised", "local only", "local with proxy"].map((name) => `trained the baseline ${name}`);
    assert.deepEqual(stderr.match(/^trained the baseline .*$/gm), trained);
    assert.match(stdout, /^local with proxy 0\.\d{4}$/m, "a name and a number, once");
    assert.match(stdout, /^ε [\d.]+ at δ = 0\.00001: all updates of a client, the one that took part most often \(add-remove\)$/m);
    await mkdir(outFolder, { recursive: true });
    for (const colorScheme of ["light", "dark"]) {
      const page = await (await browser.newContext({ colorScheme })).newPage();
      await page.goto(pathToFileURL(path).href);
      assert.equal(await page.getByRole("row", { name: /^privacy mode central/ }).count(), 1);
      const plots = page.getByRole("img");
      assert.equal(await plots.count(), 6);
      const label = await plots.first().getAttribute("aria-label");
      assert.match(label, /^Held-out accuracy: 0\.\d+ at round 1, 0\.\d+ at round 4; centralised 0\.\d+; local only/);
      await page.evaluate(await readFile(axe, "utf8"));
      for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${wide} pixels on a page of ${width}`);
        const small = await page.evaluate(() => {
          const heights = [...document.querySelectorAll("svg text")].map((text) => text.getBoundingClientRect().height);
          return Math.min(...heights);
        });
        assert.ok(small >= 11, `text in plots is ${small} pixels high at ${width}`);
        await page.screenshot({ path: join(outFolder, `report-${colorScheme}-${width}.png`), fullPage: true });
        const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
        assert.ok(passes.length > 10, "axe looked at the page");
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 100)).join(" ")}`);
        assert.deepEqual(found, [], `${colorScheme}, ${width}`);
      }
    }
  } finally {
    await browser.close();
    await rm(folder, { recursive: true, force: true });
  }
});

test("what cannot be simulated is said and not done otherwise", async () => {
  const refused = async (expected, ...words) => {
    const error = await simulate("--rounds", "1", ...words).then(() => ({ stderr: "done" }), (error) => error);
    assert.match(error.stderr, expected);
  };
  const crowd = ["--clients", "10", "--attack", "sign-flip", "--malicious", "500"];
  await refused(/^error: 500 malicious clients are more than the 10 that there are$/m, ...crowd);
  const natural = ["--partition", "natural", "--clients", "10"];
  await refused(/makes a client of each of the 100 files of \S+iid, and not 10: leave --clients out$/m, ...natural);
});
