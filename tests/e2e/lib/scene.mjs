// A relay behind the recording proxy, and a browser: what most tests need.
import { after } from "node:test";

import { launch } from "./browser.mjs";
import { harnessFolder, Tab } from "./harness.mjs";
import { Proxy } from "./proxy.mjs";
import { Relay } from "./relay.mjs";

const browsers = new Map();
after(async () => {
  for (const browser of browsers.values()) await (await browser).close();
});

/** The browser with these options that all tests of a file share: profiles keep them apart, and starting one takes longer than
 * some of the tests. One that has gone is started again. */
async function sharedBrowser(options = {}) {
  const key = JSON.stringify(options);
  const before = await browsers.get(key)?.catch(() => null);
  if (!before?.isConnected()) browsers.set(key, launch(options));
  return browsers.get(key);
}

/** Runs `body` with `{ relay, proxy, browser, profile, tab }` and clears everything away. `set` lays values over the task file;
 * without more said, one tab makes a round, and there is no noise. `browser` has the options of `launch`; with `own`, nobody else
 * uses it. */
export async function scene({ set = {}, page, signs = false, token, browser: { own = false, ...options } = {} }, body) {
  const undo = [];
  try {
    const settings = {
      "privacy.mode": "none",
      "rounds.min_clients": 1,
      "rounds.target_clients": 1,
      "rounds.deadline_ms": 60_000,
      ...set,
    };
    const relay = await Relay.start({ page: page ?? (await harnessFolder()), set: settings, signs, token });
    undo.push(() => relay.close());
    const proxy = await Proxy.start(relay.origin);
    undo.push(() => proxy.close());
    const browser = await (own ? launch(options) : sharedBrowser(options));
    if (own) undo.push(() => browser.close());
    const profile = async (options) => {
      const context = await browser.newContext(options);
      undo.push(() => context.close());
      return context;
    };
    return await body({
      relay,
      proxy,
      browser,
      /** A new profile: its own storage, cache and ledger. */
      profile,
      /** A tab; in a profile of its own unless one is given. */
      tab: async (context) => Tab.open(context ?? (await profile()), proxy.origin),
    });
  } finally {
    for (const step of undo.reverse()) await step().catch((error) => console.error("clearing away:", error.message));
  }
}

/** `promise`, or an error after `limitMs`: a stuck client must not look like a slow test. */
export function within(limitMs, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not happen within ${limitMs} ms`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until `condition` returns something true, and returns that. */
export async function until(what, condition, limitMs = 30_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what} did not happen within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
