// The accountant in a page: the built package, its wasm, loaded when first asked.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { root } from "./lib/environment.mjs";

const types = { ".js": "text/javascript", ".wasm": "application/wasm" };
const page = `<!doctype html><meta charset="utf-8"><title>accountant</title><link rel="icon" href="data:,">
<script type="module">
  import { accountant, UnsaidError } from "/pkg/dist/index.js";
  Object.assign(window, { accountant, UnsaidError, ready: true });
</script>`;

let server;
let browser;
let tab;
const requested = [];
before(async () => {
  server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    requested.push(path);
    if (path === "/") return response.writeHead(200, { "content-type": "text/html" }).end(page);
    try {
      const body = await readFile(join(root, path));
      response.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  browser = await chromium.launch({
    executablePath: process.env.UNSAID_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-background-networking"],
  });
  tab = await browser.newPage();
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  await tab.waitForFunction(() => window.ready);
});
after(async () => {
  await browser?.close();
  server?.close();
});

test("its wasm is loaded when it is first asked, and not before", async () => {
  assert.ok(!requested.some((path) => path.includes("accountant")), `requested ${requested}`);
  await tab.evaluate(() =>
    window.accountant.epsilon({ noiseMultiplier: 1, steps: 1, delta: 1e-5, adjacency: "add-remove" }));
  assert.ok(requested.includes("/pkg/dist/unsaid_accountant_bg.wasm"), `requested ${requested}`);
});

test("it gives the published values, and noise for a target", async () => {
  const run = { samplingRate: 0.01, steps: 1000, delta: 1e-5, adjacency: "add-remove" };
  const found = await tab.evaluate(async (run) => ({
    rdp: await window.accountant.epsilon({ ...run, noiseMultiplier: 1, accountant: "rdp" }),
    pld: await window.accountant.epsilon({ ...run, noiseMultiplier: 1 }),
    exact: await window.accountant.epsilon({ noiseMultiplier: 1, steps: 1, delta: 1e-5, adjacency: "add-remove" }),
    replaced: await window.accountant.epsilon({ ...run, noiseMultiplier: 1, adjacency: "replace-one" }),
    noise: await window.accountant.noiseMultiplier({ ...run, epsilon: 1.8283 }),
  }), run);
  assert.ok(Math.abs(found.rdp.epsilon - 2.1014) < 5e-4, JSON.stringify(found));
  assert.ok(Math.abs(found.pld.epsilon - 1.8282) < 5e-4, JSON.stringify(found));
  assert.ok(Math.abs(found.exact.epsilon - 4.3772) < 5e-4, JSON.stringify(found));
  assert.ok(found.pld.lower <= found.pld.upper && found.pld.lower > 1.82);
  assert.ok(found.replaced.epsilon > found.pld.epsilon);
  assert.ok(Math.abs(found.noise - 1) < 1e-3, JSON.stringify(found));
});

test("what makes no sense is a typed error that names it", async () => {
  const good = { noiseMultiplier: 1, samplingRate: 0.1, steps: 10, delta: 1e-5, adjacency: "add-remove" };
  for (const [wrong, word] of [
    [{ noiseMultiplier: 0 }, "noise multiplier is 0"],
    [{ noiseMultiplier: "much" }, "noise multiplier is NaN"],
    [{ samplingRate: 1.5 }, "sampling rate is 1.5"],
    [{ steps: 0 }, "0 steps"],
    [{ steps: 1.5 }, "whole number"],
    [{ steps: 1e12 }, "steps"],
    [{ delta: 0 }, "delta is 0"],
    [{ delta: undefined }, "delta is NaN"],
    [{ adjacency: "near" }, "adjacency must be"],
    [{ accountant: "guess" }, "accountant must be"],
    [{ sampling: "without-replacement" }, "fixed size"],
  ]) {
    const error = await tab.evaluate(
      (run) => window.accountant.epsilon(run).then(
        () => null,
        (error) => ({ typed: error instanceof window.UnsaidError, code: error.code, message: error.message }),
      ),
      { ...good, ...wrong },
    );
    assert.deepEqual({ typed: error?.typed, code: error?.code }, { typed: true, code: "bad-options" }, JSON.stringify(wrong));
    assert.ok(error.message.includes(word), `${error.message} does not say ${word}`);
  }
  for (const epsilon of [0, -1, Number.NaN]) {
    const code = await tab.evaluate(
      (run) => window.accountant.noiseMultiplier(run).catch((error) => error.code),
      { ...good, epsilon },
    );
    assert.equal(code, "bad-options");
  }
});
