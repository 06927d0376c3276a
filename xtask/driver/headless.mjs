// Steers headless tabs through the demo page, and reports each round as a line of JSON. Started by `cargo xtask demo
// --headless`, which renders the table; the end-to-end tests call `runTabs`.
import { launch, watch } from "../../tests/e2e/lib/browser.mjs";

const TASK = "mnist";
const POLL_MS = 200;
/** Between a round's publication and the last tab's word on it. */
const REPORT_MS = 30_000;
/** Tabs opened at the same time. */
const BATCH = 4;
/** A headless run is stopped by its number of rounds, not by a person's privacy limit. */
const BUDGET = { epsilon: 1e6, delta: 1e-5 };

class Tab {
  events = [];

  constructor(number, page) {
    this.number = number;
    this.page = page;
    this.troubles = watch(page);
  }

  /** Fetches what the page's client has reported since the last time; throws where taking part has failed. */
  async update() {
    const report = await this.page.evaluate(() => {
      const demo = window.unsaidDemo;
      if (!demo) return null;
      if (demo.done && !window.headlessEnd) {
        window.headlessEnd = { kind: "running" };
        demo.done.then(
          (summary) => void (window.headlessEnd = { kind: "ended", ...summary }),
          (error) => void (window.headlessEnd = { kind: "failed", code: error.code, message: error.message }),
        );
      }
      // The page forgets its oldest events, so a count of those read would not do.
      const fresh = demo.events.slice(demo.events.lastIndexOf(window.headlessLast) + 1);
      window.headlessLast = fresh.at(-1) ?? window.headlessLast;
      const wanted = ["state", "backend", "upload", "relay", "contribution"];
      return { events: fresh.filter((event) => wanted.includes(event.type)), end: window.headlessEnd ?? null };
    });
    if (!report) return;
    this.events.push(...report.events);
    const { end } = report;
    if (end?.kind === "failed") throw new Error(`tab ${this.number} failed: ${end.code}: ${end.message}`);
    if (end?.kind === "ended" && !["rounds-done", "finished"].includes(end.reason)) {
      throw new Error(`tab ${this.number} left early: ${end.reason}`);
    }
  }

  contribution(round) {
    return this.events.find((event) => event.type === "contribution" && event.round === round);
  }

  get backend() {
    return this.events.findLast((event) => event.type === "backend")?.backend ?? null;
  }

  /** For error messages: what it did last, and what it tells the person. */
  async describe() {
    const last = this.events.slice(-3).map((event) => JSON.stringify(event).slice(0, 160));
    const notice = await this.page
      .evaluate(() => [...document.querySelectorAll("[role=alert], [role=status]")].map((element) => element.innerText))
      .catch((error) => [error.message]);
    const words = [...this.troubles.slice(-3), ...notice.map((text) => text.trim().replaceAll("\n", " ")).filter(Boolean)];
    return [`tab ${this.number}: ${last.join(" ") || "has reported nothing"}`, ...words].join("\n  ");
  }
}

/** Opens `clients` tabs, each with a profile and a shard of its own, and lets them train `rounds` rounds. Calls
 * `onRound` with each round once it is published, evaluated and reported by its tabs. */
export async function runTabs(config, onRound) {
  const { origin, clients, rounds, backend, noise, partition = "iid", examples = 600, stallMs = 180_000 } = config;
  const get = async (path) => {
    const response = await fetch(`${origin}/v1/tasks/${TASK}/${path}`);
    if (!response.ok) throw new Error(`the relay answers ${response.status} for ${path}`);
    return response.json();
  };
  const before = await get("rounds");
  const first = Math.max(0, ...before.map((metrics) => metrics.round)) + 1;
  const browser = await launch({ program: config.chromium });
  const tabs = [];
  try {
    const open = async (number) => {
      const context = await browser.newContext();
      const page = await context.newPage();
      tabs.push(new Tab(number, page));
      const query = new URLSearchParams({ task: TASK, backend, partition, shard: number - 1, autojoin: 1, rounds });
      query.append("epsilon", BUDGET.epsilon);
      query.append("delta", BUDGET.delta);
      if (examples !== 600) query.append("examples", examples);
      await page.goto(`${origin}/?${query}`);
    };
    for (let number = 1; number <= clients; number += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, clients - number + 1) }, (_, index) => open(number + index));
      await Promise.all(batch);
    }

    const stalled = async (reason) => {
      const state = JSON.stringify(await get("round").catch((error) => error.message));
      const words = await Promise.all(tabs.map((tab) => tab.describe()));
      return new Error(`${reason}; the relay says ${state}\n${words.join("\n")}`);
    };
    let next = first;
    let progress = Date.now();
    let published = null;
    while (next < first + rounds) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      await Promise.all(tabs.map((tab) => tab.update()));
      const metrics = (await get("rounds")).find((metrics) => metrics.round === next);
      if (!metrics || metrics.accuracy === null) {
        if (Date.now() - progress > stallMs) {
          const what = metrics ? "was published but not evaluated" : "was not published";
          throw await stalled(`round ${next} ${what} within ${stallMs / 1000} s`);
        }
        continue;
      }
      // The tabs that the round counts say what they downloaded, and what their ledgers hold.
      published ??= Date.now();
      const told = tabs.map((tab) => tab.contribution(next)).filter(Boolean);
      if (told.length < metrics.clients) {
        if (Date.now() - published > REPORT_MS) {
          throw await stalled(`round ${next} counts ${metrics.clients} updates, but ${told.length} tabs reported one`);
        }
        continue;
      }
      onRound({
        round: metrics.round,
        clients: metrics.clients,
        accuracy: metrics.accuracy,
        epsilon: noise ? Math.max(...told.map((contribution) => contribution.epsilonSpent)) : null,
        bytes_up: metrics.bytes_up,
        // What one browser does not tell, the sum cannot hold: then there is none, and the row is refused.
        bytes_down: told.some(({ bytesDown }) => bytesDown === null)
          ? null
          : told.reduce((sum, { bytesDown }) => sum + bytesDown, 0),
        seconds: metrics.duration_ms / 1000,
      });
      next++;
      progress = Date.now();
      published = null;
    }

    // The last word is the ledgers': what the table said must be what they hold.
    for (const tab of tabs) {
      const budget = await tab.page.evaluate(() => window.unsaidDemo.client.budget.get());
      const said = tab.events.findLast((event) => event.type === "contribution")?.epsilonSpent ?? 0;
      if (Math.abs(budget.spent - said) > 1e-9 * Math.max(1, said)) {
        throw new Error(`tab ${tab.number} reported ε ${said}, but its ledger holds ${budget.spent}`);
      }
      if (budget.delta !== BUDGET.delta) throw new Error(`tab ${tab.number} counts at δ ${budget.delta}`);
    }
    const backends = new Set(tabs.map((tab) => tab.backend));
    if (backends.has(null)) throw new Error("a tab did not say where it trains");
    return { backend: [...backends].sort().join("+"), delta: BUDGET.delta };
  } finally {
    await browser.close();
  }
}

async function main() {
  const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
  // xtask holds the other end of standard input: when it is gone, so is the reason to run.
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(1));
  try {
    const end = await runTabs(JSON.parse(process.env.UNSAID_HEADLESS), (round) => say({ type: "round", ...round }));
    say({ type: "done", ...end });
    process.exitCode = 0;
  } catch (error) {
    say({ type: "error", message: error.message });
    process.exitCode = 1;
  }
  process.stdin.destroy();
}

if (process.argv[1] === import.meta.filename) await main();
