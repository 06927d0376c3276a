// The demo page. It uses the package as any page would; what it adds is drawing.

import { connect, UnsaidError, type BudgetView, type Client, type ClientEvent, type RunSummary } from "unsaid";

import "./style.css";
import { createBudget, drawBudget, exceeds, FIRST_LIMIT, hideRaise, showRaise } from "./budget.js";
import { createChart } from "./chart.js";
import { button, element, say } from "./dom.js";
import * as format from "./format.js";
import { drawLearn } from "./learn.js";
import { drawLeft } from "./left.js";
import { createLocal, drawLocal } from "./local.js";
import { hideNotice, showError, showNotice } from "./notice.js";
import { createPad } from "./pad.js";
import { readQuery } from "./query.js";
import { createReading } from "./reading.js";
import { createSeen, drawSeen } from "./seen.js";
import { createTheme } from "./theme.js";
import { apply, emptyView } from "./view.js";

/** For automation: what the page does, readable from outside. */
interface Demo {
  client: Client | null;
  readonly events: ClientEvent[];
  /** The run under way or the last one. */
  done: Promise<RunSummary> | null;
}

declare global {
  interface Window {
    unsaidDemo: Demo;
  }
}

const MOST_EVENTS = 20_000;
const RETRY_MS = 5000;
/** Tabs of one browser that may take part at once: each has data and an id of its own, and all share one ledger. */
const PARTICIPANTS = 16;

/**
 * The package's own floors refuse a task without noise, a relay that has to be trusted with it, and a round of one. This page takes
 * them: it exists to show what they mean, names the weakness or lack of noise in red beside the button, and lets the person decide.
 */
const FLOORS = { minNoiseMultiplier: 0, minCohort: 1, trustRelay: true };

const query = readQuery(location.search, location.hash, navigator.webdriver);
const view = emptyView();
const demo: Demo = { client: null, events: [], done: null };
window.unsaidDemo = demo;

const chart = createChart();
const reading = createReading();
const pad = createPad(() => reading.ask(demo.client, pad.example()));
createTheme(() => {
  chart.recolour();
  pad.redraw();
});

/** Drawing more often shows a person no more, and laying out the page is what its thread has to do. */
const BETWEEN_DRAWINGS_MS = 100;

let scheduled = false;
let drawnAt = 0;
function redraw(): void {
  if (scheduled) return;
  scheduled = true;
  const wait = Math.max(0, drawnAt + BETWEEN_DRAWINGS_MS - performance.now());
  setTimeout(() => requestAnimationFrame(draw), wait);
}

/** At once: where a message says that a number has changed, the number must not be the old one beside it. */
function draw(): void {
  scheduled = false;
  drawnAt = performance.now();
  drawLearn(view, chart);
  drawLocal(view);
  drawLeft(view);
  drawBudget(view);
  drawSeen(view);
}
// The deadline counts down.
setInterval(() => {
  if (view.open?.deadlineMs != null) redraw();
}, 1000);

const local = createLocal({ view, client: () => demo.client, redraw }, pad, query);
createBudget({
  view,
  setLimit: async (budget) => {
    const { client } = demo;
    if (!client) throw new Error("the session is not open");
    view.budget = await client.budget.set(budget);
    draw();
  },
  join: () => void join().catch(() => {}),
  exportLedger: async () => {
    if (!demo.client) throw new Error("the session is not open");
    return demo.client.budget.export();
  },
  eraseLedger: async () => {
    if (!demo.client) throw new Error("the session is not open");
    view.budget = await demo.client.budget.erase();
    draw();
  },
});

createSeen({ view, models: `${location.origin}/v1/tasks/${query.task}/models` }, pad);

function hear(event: ClientEvent): void {
  demo.events.push(event);
  if (demo.events.length > MOST_EVENTS) demo.events.shift();
  apply(view, event);
  redraw();
  switch (event.type) {
    case "round":
      reading.ask(demo.client, pad.example());
      break;
    case "backend":
      if (event.fallback) showNotice("WebGPU was lost.", "Training goes on on the CPU. The pass over your data that was under way began again from its start.", "info");
      break;
    case "restarted":
      showNotice("The training worker crashed and was restarted.", "Your data and your ledger are safe. Join again to go on.", "bad", {
        label: "Join again",
        run: () => void join().catch(() => {}),
      });
      break;
    case "relay":
      if (event.status === "back") hideNotice();
      break;
  }
}

let leave: AbortController | null = null;

/** Takes part until the person leaves, the task ends, or the limit is reached. */
function join(): Promise<RunSummary> {
  const { client } = demo;
  if (!client) return Promise.reject(new UnsaidError("closed", "the session is not open"));
  hideNotice();
  hideRaise();
  leave = new AbortController();
  const { signal } = leave;
  view.joined = true;
  redraw();
  const { rounds, invitation } = query;
  const run = client.join({ signal, ...(rounds !== null && { rounds }), ...(invitation !== null && { invitation }) });
  const done = run
    .then((summary) => {
      if (summary.reason === "budget-exhausted") showRaise(view);
      if (summary.reason === "finished") showNotice("The task is finished.", "It has published its last round. The model is yours to try.", "info");
      return summary;
    })
    .catch((error: unknown) => {
      if (error instanceof UnsaidError && error.code === "budget-exhausted") showRaise(view);
      // A crash is told by the event that follows it.
      else if (!(error instanceof UnsaidError && error.code === "crashed")) showError(error, again(error));
      throw error;
    })
    .finally(async () => {
      view.joined = view.leaving = false;
      leave = null;
      redraw();
      view.budget = await client.budget.get().catch(() => view.budget);
      redraw();
    });
  demo.done = done;
  return done;
}

const again = (error: unknown): { label: string; run: () => void } | undefined =>
  error instanceof UnsaidError && ["relay-unreachable", "bad-model", "non-finite", "refused"].includes(error.code)
    ? { label: "Join again", run: () => void join().catch(() => {}) }
    : undefined;

button("join").addEventListener("click", () => {
  if (leave) {
    view.leaving = true;
    leave.abort();
    redraw();
  } else if (view.data?.examples === 0) {
    showError(new UnsaidError("no-data", ""));
  } else if (exceeds(view.budget)) {
    showRaise(view);
  } else {
    join().catch(() => {});
  }
});

/** Opens the session and learns what the task asks. */
async function open(): Promise<void> {
  const client =
    demo.client ??
    (await connect({
      relay: location.origin,
      task: query.task,
      backend: query.backend,
      budget: FIRST_LIMIT,
      floors: FLOORS,
      participants: PARTICIPANTS,
      onEvent: hear,
    }));
  view.data = await client.data.summary();
  view.budget = await limitOf(client);
  // After the limit: what a round costs is read at its δ.
  view.manifest = await client.manifest();
  view.relay = "connected";
  demo.client = client;
  redraw();
}

/** The budget, after the limit that the address asks for, if any, was set: it holds whatever an earlier visit left. */
async function limitOf(client: Client): Promise<BudgetView> {
  const budget = await client.budget.get();
  const epsilon = query.epsilon ?? budget.epsilon;
  const delta = query.delta ?? budget.delta;
  if (epsilon === budget.epsilon && delta === budget.delta) return budget;
  const set = await client.budget.set({ epsilon, delta });
  say(element("limit-said"), `This page’s address set your limit to ε = ${format.epsilon(epsilon)} at δ = ${format.delta(delta)}.`);
  return set;
}

async function start(): Promise<void> {
  for (;;) {
    try {
      await open();
      hideNotice();
      break;
    } catch (error) {
      const away = error instanceof UnsaidError && error.code === "relay-unreachable";
      if (away) view.relay = "unreachable";
      redraw();
      showError(error, { label: "Try again", run: () => location.reload() });
      if (!away) return;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  reading.ask(demo.client, pad.example());
  const load = async (): Promise<void> => {
    if ((query.shard !== null || query.autojoin) && view.data?.examples === 0) await local.load(query.partition);
  };
  if (query.autojoin) {
    demo.done = load().then(join);
    await demo.done;
  } else {
    await load();
  }
}

redraw();
start().catch((error: unknown) => {
  // What goes wrong in a run is shown by the run.
  if (!(error instanceof UnsaidError)) showError(error);
});
