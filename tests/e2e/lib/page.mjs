// The demo page, open and connected.
import assert from "node:assert/strict";

import { watch } from "./browser.mjs";
import { pageFolder } from "./environment.mjs";
import { scene } from "./scene.mjs";

/** Runs `body` with an open demo page. */
export function onPage({ query = "", backend = "cpu", context = {}, set = {} }, body) {
  return scene({ page: pageFolder(), set }, async ({ profile, proxy, relay }) => {
    const page = await (await profile(context)).newPage();
    const troubles = watch(page);
    await page.goto(`${proxy.origin}/?task=mnist&backend=${backend}${query}`);
    await page.waitForFunction(() => window.unsaidDemo?.client, null, { timeout: 20_000 });
    await body(page, { relay, proxy, troubles });
    assert.deepEqual(troubles, [], "no errors on the console");
  });
}

/** Waits until the page's client has contributed to `count` rounds in all. */
export const contributed = (page, count, limitMs = 60_000) =>
  page.waitForFunction(
    (count) => window.unsaidDemo.events.filter((event) => event.type === "contribution").length >= count,
    count,
    { timeout: limitMs, polling: 100 },
  );
