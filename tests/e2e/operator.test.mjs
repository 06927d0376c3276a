// The operator's page: it shows what happened, does what its buttons say, keeps the token to itself, asks its relay alone, and can be
// read by everyone, in both colours and on a phone.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { launch, watch } from "./lib/browser.mjs";
import { outFolder } from "./lib/environment.mjs";
import { Proxy } from "./lib/proxy.mjs";
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

/** `use` gets the page, asked for through a proxy: its origin stays while relays come and go. */
async function onOperatorsPage(use, context = {}, settings = {}) {
  const set = { "rounds.min_clients": 2, "rounds.target_clients": 2, ...settings };
  const relay = await Relay.start({ set, token: TOKEN });
  const proxy = await Proxy.start(relay.origin);
  const browser = await launch({ webgpu: false });
  try {
    const page = await (await browser.newContext(context)).newPage();
    const troubles = watch(page);
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(`${proxy.origin}/operator`);
    await use(page, { relay, proxy, troubles, asked });
  } finally {
    await browser.close();
    await proxy.close();
    await relay.close();
  }
}

/** What axe finds wrong. */
async function faults(page) {
  await page.evaluate(await readFile(axe, "utf8"));
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  assert.ok(passes.length > 10, "axe looked at the page");
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 100)).join(" ")}`);
}

async function shot(page, name) {
  await mkdir(outFolder, { recursive: true });
  await page.screenshot({ path: join(outFolder, `operator-${name}.png`), fullPage: true });
}

async function enter(page) {
  await page.getByLabel("Operator’s token").fill(TOKEN);
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByRole("heading", { name: "Handwritten digits (mnist)" }).waitFor();
}

test("an operator sees what happened, pauses, goes back, and leaves nothing behind", async () => {
  await onOperatorsPage(async (page, { relay, proxy, troubles, asked }) => {
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
    assert.deepEqual(counts, ["Asked 4", "Selected 4", "Reported 4", "Late 1"]);
    assert.equal(await page.locator(".refused").innerText(), "round-closed: 1");
    const { accuracy } = await relay.published(2);
    const accuracies = await page.locator(".accuracy svg").getAttribute("aria-label");
    assert.ok(accuracies.endsWith(`${(accuracy * 100).toFixed(2)} % after round 2`), accuracies);
    const spent = await page.locator(".epsilon svg").getAttribute("aria-label");
    // Two rounds of rho = 2 / 0.1^2 each: rho + 2 sqrt(rho ln(1/delta)) is an upper bound, and rho a lower one.
    const epsilon = Number(/, ([\d.e+]+) after round 2$/.exec(spent)[1]);
    assert.ok(epsilon > 400 && epsilon < 400 + 2 * Math.sqrt(400 * Math.log(1e5)), spent);
    assert.equal(await page.locator("tbody tr").count(), 3);
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "2: take the model" }).click()]);
    assert.equal(file.suggestedFilename(), "mnist-2.safetensors");
    const bytes = await readFile(await file.path());
    const { __metadata__: lineage } = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString());
    const told = (await relay.rounds())[2];
    assert.deepEqual([lineage.model, lineage.parent, Number(lineage.epsilon)], [told.model, told.parent, told.spent.epsilon]);

    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume" }).waitFor();
    assert.equal((await relay.round()).paused, true);
    await page.getByRole("status").getByText("mnist is paused.").waitFor();
    const back = page.getByRole("button", { name: "Back to 1" });
    await back.click();
    await page.getByRole("button", { name: "Leave it" }).click();
    assert.equal((await relay.rounds()).length, 3, "a question that is declined does nothing");
    await back.click();
    await page.getByRole("button", { name: "Roll back" }).click();
    await page.getByRole("cell", { name: "back to 1", exact: true }).waitFor(); // not the button “Back to 1”
    await page.getByRole("status").getByText("mnist went back to the model of round 1.").waitFor();
    const rounds = await relay.rounds();
    assert.deepEqual([rounds[3].rolled_back_to, rounds[3].model], [1, rounds[1].model]);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();

    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href]);
    assert.deepEqual(kept, [0, 0, "", `${proxy.origin}/operator/`]);
    await page.reload();
    await page.getByLabel("Operator’s token").waitFor();
    assert.equal(await page.locator("section").count(), 0, "a page that is loaded again knows nothing");
    const elsewhere = asked.filter((url) => !url.startsWith(proxy.origin) && !url.startsWith("data:"));
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
        for (const [name, width, height] of [["desk", 1280, 900], ["phone", 390, 800]]) {
          await page.setViewportSize({ width, height });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
          assert.equal(wide, 0, `nothing is cut off at ${width} pixels`);
          await shot(page, `${colorScheme}-${name}`);
        }
        assert.deepEqual(await faults(page), []);
        assert.deepEqual(troubles, []);
      },
      { colorScheme },
    );
  });

  test(`a relay that is gone is seen to be, and when it is back, ${colorScheme}`, async () => {
    await onOperatorsPage(
      async (page, { relay, proxy, troubles }) => {
        await round(relay, [1, 2]);
        await enter(page);
        await page.getByRole("button", { name: "Pause" }).click();
        const back = page.getByRole("button", { name: "Back to 0" });
        await back.click();
        await page.setViewportSize({ width: 390, height: 800 });
        await back.evaluate((it) => it.scrollIntoView({ block: "end" }));

        proxy.target = null;
        await relay.kill();
        const said = page.getByText("The relay cannot be asked: it does not answer.");
        await said.waitFor();
        const { y, height } = await said.boundingBox();
        assert.ok((await page.evaluate(() => scrollY)) > 0, "the page is scrolled");
        assert.ok(y >= 0 && y + height <= 800, `it is said where one looks, and not at ${y}`);
        assert.equal(await page.getByText("store works").count(), 0);
        assert.equal(await page.getByRole("dialog").count(), 0, "what would be answered to nobody is not asked");
        const buttons = page.locator("#tasks button");
        const usable = await buttons.evaluateAll((all) => all.filter((button) => !button.disabled).length);
        assert.deepEqual([usable, await buttons.count()], [0, 3]);
        await page.getByText(/^as it was [2-9] s ago$/).waitFor();
        for (const [name, width, height] of [["desk", 1280, 900], ["phone", 390, 800]]) {
          await page.setViewportSize({ width, height });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
          assert.equal(wide, 0, `nothing is cut off at ${width} pixels`);
          await shot(page, `lost-${colorScheme}-${name}`);
        }
        assert.deepEqual(await faults(page), [], "what is old can be read all the same");

        await relay.restart();
        proxy.target = relay.origin;
        await page.getByText("store works").waitFor();
        assert.equal(await said.isVisible(), false);
        assert.equal(await page.getByText(/as it was/).count(), 0);
        assert.equal(await back.isEnabled(), true);
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "Back to 0", "the focus is where it was");
        const other = troubles.filter((text) => !/Failed to load resource: net::ERR_/.test(text));
        assert.deepEqual(other, []);

        // A relay that is frozen, or a network that swallows everything, ends no connection.
        await page.route("**/v1/admin/status", () => {});
        await said.waitFor({ timeout: 15_000 });
        await page.unroute("**/v1/admin/status");
        await page.getByText("store works").waitFor();
      },
      { colorScheme },
    );
  });
}

test("a large ε stands in the chart as a whole, at any width", async () => {
  const settings = { "privacy.noise_multiplier": 0.02 };
  await onOperatorsPage(
    async (page, { relay }) => {
      await round(relay, [1, 2]);
      await enter(page);
      await page.locator(".epsilon circle").waitFor();
      const spent = await page.locator(".epsilon svg").getAttribute("aria-label");
      // A round of rho = 2 / 0.02^2: rho + 2 sqrt(rho ln(1/delta)) is an upper bound, and rho a lower one. Three digits are shown.
      const [, text] = /, ([\d,]+) after round 1$/.exec(spent);
      const epsilon = Number(text.replaceAll(",", ""));
      assert.ok(epsilon > 5000 && epsilon < 5005 + 2 * Math.sqrt(5000 * Math.log(1e5)), spent);
      for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 900 });
        const charts = await page.evaluate(() =>
          [...document.querySelectorAll("svg")].map((svg) => {
            const around = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].map((text) => {
              const box = text.getBoundingClientRect();
              const inside = box.left >= around.left && box.right <= around.right && box.top >= around.top && box.bottom <= around.bottom;
              return { text: text.textContent, inside, right: text.getAttribute("text-anchor") === "end" };
            });
          }),
        );
        assert.equal(charts.length, 2);
        assert.deepEqual(charts.flat().filter((label) => !label.inside), [], `${width} pixels`);
        const axis = charts[1].filter((label) => label.right).map((label) => label.text);
        assert.deepEqual(axis.slice(0, 3), ["0", "3,000", "6,000"]);
        await shot(page, `epsilon-${width}`);
      }
    },
    {},
    settings,
  );
});

test("an ε says whose it is, and at which δ", async () => {
  const central = { "privacy.mode": "central", "privacy.adjacency": "add-remove", "privacy.delta": 1e-6 };
  const example = { "privacy.mode": "example", "privacy.clip_l2": 1, "privacy.sampling_rate": 0.1, "privacy.noise_multiplier": 1 };
  for (const [settings, whose, noise] of [
    [{}, "ε of a client in every round, at δ = 0.00001", "on updates, 0.1 × Δ"],
    [central, "ε of a client in every round, at δ = 0.000001", "on sums, by the relay, 0.1 × Δ"],
    [example, "ε of one example of a client in every round, at δ = 0.00001", "on gradients, 1 × clip, rate 0.1"],
  ]) {
    await onOperatorsPage(
      async (page) => {
        await enter(page);
        assert.equal(await page.locator(".epsilon figcaption").innerText(), whose);
        assert.equal(await page.getByText(noise, { exact: true }).count(), 1);
      },
      {},
      settings,
    );
  }
});

test("a token that nobody can have is said to be wrong, and the focus goes where one reads on", async () => {
  await onOperatorsPage(async (page, { troubles, proxy }) => {
    const before = proxy.requests.length;
    await page.getByLabel("Operator’s token").fill("tokén of the tests");
    await page.getByLabel("Operator’s token").press("Enter");
    await page.getByText("its sign number 4 is none of ASCII’s").waitFor();
    await page.waitForTimeout(2500);
    assert.deepEqual([proxy.requests.length - before, troubles], [0, []], "nobody is asked, once or again");
    assert.equal(await page.getByLabel("Operator’s token").isVisible(), true);
    // As it comes from a file.
    await page.getByLabel("Operator’s token").fill(` ${TOKEN} `);
    await page.getByLabel("Operator’s token").press("Enter");
    const title = page.getByRole("heading", { name: "Handwritten digits (mnist)" });
    await title.waitFor();
    assert.equal(await title.evaluate((it) => it === document.activeElement), true);
    assert.equal(await page.getByText("none of ASCII").count(), 0);
  });
});
