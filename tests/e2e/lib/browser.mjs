// Headless Chromium, with a profile of its own for each launch and each context.
import { chromium } from "playwright-core";

import { chromiumProgram } from "./environment.mjs";

const quiet = [
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  // Tabs in the background of a headless browser train like those in front.
  "--disable-background-timer-throttling",
  "--disable-renderer-backgrounding",
  "--disable-backgrounding-occluded-windows",
];

/** Starts Chromium; without `webgpu`, as on a machine that has none. */
export function launch({ webgpu = true, program = chromiumProgram(), args = [] } = {}) {
  return chromium.launch({
    executablePath: program,
    headless: true,
    chromiumSandbox: false,
    args: [...quiet, ...(webgpu ? ["--enable-unsafe-webgpu"] : []), ...args],
  });
}

/** Collects what must not happen on a page: uncaught errors, and errors on the console. */
export function watch(page) {
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(`uncaught: ${error.message}`));
  page.on("crash", () => troubles.push("the tab crashed"));
  page.on("console", (message) => {
    if (message.type() === "error") troubles.push(`console: ${message.text()} (${message.location().url})`);
  });
  return troubles;
}
