// The operator's page: it shows what happened, does what its buttons say, keeps the token to itself, asks its relay alone, and can be
// read by everyone, in both colours and on a phone.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { launch, watch } from "./lib/browser.mjs";
import { outFolder } from "./lib/environment.mjs";
import { Relay } from "./lib/relay.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const TOKEN = "a token of the tests";
const PARAMETERS = 101_770;

/** An update of zeros (PROTOCOL.md, section 5): what is looked at here is the way of updates, not what is learned. */
function frame(client, state, update) {
  const bytes = Buffer.alloc(116 + PARAMETERS);
  bytes.write("UNSU", 0, "latin1");
  bytes.writeUInt16LE(1, 4);
  bytes[6] = 1;
  for (const [hex, at] of [[update, 8], [client, 24], [state.manifest, 40], [state.model, 72]]) bytes.write(hex, at, "hex");
  bytes.writeBigUInt64LE(BigInt(state.round), 104);
  bytes.writeUInt32LE(PARAMETERS, 112);
  return bytes;
}

const id = (round, client) => (round * 256 + client).toString(16).padStart(32, "0");

async function send(relay, path, type, body) {
  const response = await fetch(`${relay.origin}/v1/tasks/mnist/${path}`, { method: "POST", headers: { "content-type": type }, body });
  return response.status;
}

async function round(relay, clients) {
  const state = await relay.round();
  for (const client of clients) {
    const ask = JSON.stringify({ client: id(0, client), manifest: state.manifest });
    assert.equal(await send(relay, "check-in", "application/json", ask), 200);
  }
  for (const client of clients) {
    const bytes = frame(id(0, client), state, id(state.round, client));
    assert.equal(await send(relay, "updates", "application/vnd.unsaid.update", bytes), 200);
  }
  await relay.published(state.round);
  return state;
}

async function onOperatorsPage(use, context = {}) {
  const set = { "rounds.min_clients": 2, "rounds.target_clients": 2 };
  const relay = await Relay.start({ set, token: TOKEN });
  const browser = await launch({ webgpu: false });
  try {
    const page = await (await browser.newContext(context)).newPage();
    const troubles = watch(page);
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(`${relay.origin}/operator`);
    await use(page, { relay, troubles, asked });
  } finally {
    await browser.close();
    await relay.close();
  }
}

async function enter(page) {
  await page.getByLabel("Operator’s token").fill(TOKEN);
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByRole("heading", { name: "Handwritten digits (mnist)" }).waitFor();
}

test("an operator sees what happened, pauses, goes back, and leaves nothing behind", async () => {
  await onOperatorsPage(async (page, { relay, troubles, asked }) => {
    const first = await round(relay, [1, 2]);
    await round(relay, [1, 2]);
    const late = frame(id(0, 3), first, id(first.round, 3));
    assert.equal(await send(relay, "updates", "application/vnd.unsaid.update", late), 410);

    await page.getByLabel("Operator’s token").fill("another token altogether");
    await page.getByRole("button", { name: "Open" }).click();
    await page.getByText("This is not the operator’s token.").waitFor();
    assert.equal(troubles.splice(0).length, 1, "the browser reports the 401, and nothing else");
    await enter(page);
    assert.equal(await page.getByLabel("Operator’s token").isVisible(), false, "what is done with is gone");

    const funnel = await page.locator(".funnel li").allInnerTexts();
    const counts = funnel.map((line) => line.split(/\s+/).filter(Boolean).join(" "));
    assert.deepEqual(counts, ["Checked in 4", "Selected 4", "Reported 4", "Late 1"]);
    assert.equal(await page.locator(".refused").innerText(), "round-closed: 1");
    const { accuracy } = await relay.published(2);
    const accuracies = await page.locator(".accuracy svg").getAttribute("aria-label");
    assert.ok(accuracies.endsWith(`${(accuracy * 100).toFixed(2)} % after round 2`), accuracies);
    const spent = await page.locator(".epsilon svg").getAttribute("aria-label");
    // Two rounds of rho = 2 / 0.1^2 each: rho + 2 sqrt(rho ln(1/delta)) is an upper bound, and rho a lower one.
    const epsilon = Number(/, ([\d.e+]+) after round 2$/.exec(spent)[1]);
    assert.ok(epsilon > 400 && epsilon < 400 + 2 * Math.sqrt(400 * Math.log(1e5)), spent);
    assert.equal(await page.locator("tbody tr").count(), 3);

    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume" }).waitFor();
    assert.equal((await relay.round()).paused, true);
    const back = page.getByRole("button", { name: "Back to 1" });
    await back.click();
    await page.getByRole("button", { name: "Leave it" }).click();
    assert.equal((await relay.rounds()).length, 3, "a question that is declined does nothing");
    await back.click();
    await page.getByRole("button", { name: "Roll back" }).click();
    await page.getByRole("cell", { name: "back to 1", exact: true }).waitFor(); // not the button “Back to 1”
    const rounds = await relay.rounds();
    assert.deepEqual([rounds[3].rolled_back_to, rounds[3].model], [1, rounds[1].model]);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();

    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href]);
    assert.deepEqual(kept, [0, 0, "", `${relay.origin}/operator/`]);
    await page.reload();
    await page.getByLabel("Operator’s token").waitFor();
    assert.equal(await page.locator("section").count(), 0, "a page that is loaded again knows nothing");
    const elsewhere = asked.filter((url) => !url.startsWith(relay.origin) && !url.startsWith("data:"));
    assert.deepEqual(elsewhere, []);
    assert.ok(!asked.some((url) => url.includes("token")), "no address carries the token");
    assert.deepEqual(troubles, []);
  });
});

for (const colorScheme of ["light", "dark"]) {
  test(`it can be read by everyone, ${colorScheme}, on a desk and on a phone`, async () => {
    await onOperatorsPage(
      async (page, { relay, troubles }) => {
        await round(relay, [1, 2]);
        await enter(page);
        await page.locator(".accuracy circle").waitFor();
        await mkdir(outFolder, { recursive: true });
        for (const [name, width, height] of [["desk", 1280, 900], ["phone", 375, 800]]) {
          await page.setViewportSize({ width, height });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
          assert.equal(wide, 0, `nothing is cut off at ${width} pixels`);
          await page.screenshot({ path: join(outFolder, `operator-${colorScheme}-${name}.png`), fullPage: true });
        }
        await page.evaluate(await readFile(axe, "utf8"));
        const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
        assert.ok(passes.length > 10, "axe looked at the page");
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 100)).join(" ")}`);
        assert.deepEqual(found, []);
        assert.deepEqual(troubles, []);
      },
      { colorScheme },
    );
  });
}
