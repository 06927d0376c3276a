// The person's privacy limit.

import { explain, type Budget, type BudgetView, type ManifestView } from "unsaid";

import { button, byId, element, say } from "./dom.js";
import { limitFor, rhoOf, roundUp, roundsWithin, type Spending } from "./epsilon.js";
import * as format from "./format.js";
import { isWeak, warning, worthOf } from "./honesty.js";
import type { View } from "./view.js";

/** What the ledger begins with on a first visit; afterwards it keeps the person's own limit. */
export const FIRST_LIMIT: Budget = { epsilon: 8, delta: 1e-5 };
/** How many rounds the proposed limit pays for. */
const PROPOSED_ROUNDS = 20;

export interface BudgetHost {
  readonly view: View;
  /** Sets the limit; rejects where it cannot be set. */
  readonly setLimit: (budget: Budget) => Promise<void>;
  readonly join: () => void;
  /** The ledger's JSON. */
  readonly exportLedger: () => Promise<string>;
  /** Forgets the ledger and the browser's ids. */
  readonly eraseLedger: () => Promise<void>;
}

export function createBudget(host: BudgetHost): void {
  const field = byId("limit-value", HTMLInputElement);
  const change = async (input: HTMLInputElement): Promise<boolean> => {
    const delta = host.view.budget?.delta;
    const epsilon = input.valueAsNumber;
    if (delta === undefined || !(epsilon >= 0)) return false;
    await host.setLimit({ epsilon, delta });
    return true;
  };
  byId("limit-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    change(field).then(
      (done) => say(element("limit-said"), done ? `Your limit is ε = ${format.epsilon(field.valueAsNumber)} now, on later visits too.` : "Give a number of at least 0."),
      () => say(element("limit-said"), "The limit could not be set."),
    );
  });
  byId("raise-value", HTMLInputElement).addEventListener("input", () => describeRaise(host.view));
  byId("raise-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    change(byId("raise-value", HTMLInputElement)).then(
      (done) => {
        if (!done) return;
        hideRaise();
        host.join();
      },
      () => {},
    );
  });
  createLedger(host);
  button("raise-no").addEventListener("click", () => {
    hideRaise();
    button("join").focus();
  });
}

/** The buttons that save and erase the ledger. Erasing asks once more, on the button itself. */
function createLedger(host: BudgetHost): void {
  const [erase, keep, said] = [button("ledger-erase"), button("ledger-keep"), element("ledger-said")];
  button("ledger-export").addEventListener("click", () => {
    host.exportLedger().then(
      (json) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([json], { type: "application/json" }));
        link.download = "unsaid-ledger.json";
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
        say(said, "The ledger was saved as unsaid-ledger.json.");
      },
      () => say(said, "The ledger could not be read."),
    );
  });
  const ask = (asking: boolean): void => {
    keep.hidden = !asking;
    say(erase, asking ? "Yes, erase it" : "Erase the ledger");
  };
  erase.addEventListener("click", () => {
    if (keep.hidden) {
      ask(true);
      say(said, "What you sent stays sent, and your ε with it; only the count of it is lost, and your next rounds start at 0. Relays will take this browser for a new one.");
      return;
    }
    ask(false);
    host.eraseLedger().then(
      () => say(said, "The ledger and this browser’s ids are erased."),
      () => say(said, "It could not be erased. Leave the task first."),
    );
  });
  keep.addEventListener("click", () => {
    ask(false);
    say(said, "");
    erase.focus();
  });
}

/** Whether the next round costs more than the person allows. */
export const exceeds = (budget: BudgetView | null): boolean => budget?.ifOneMore != null && budget.ifOneMore > budget.epsilon;

function spending({ budget, manifest }: View): Spending | null {
  if (!budget || (manifest?.privacy.mode !== "local" && manifest?.privacy.mode !== "central")) return null;
  const { privacy } = manifest;
  // In a tree a round costs more than its noise alone says: as much as noise of this multiplier would.
  const noiseMultiplier = privacy.mode === "central" ? Math.sqrt(2 / rhoOf(privacy.epsilonPerRound, privacy.delta)) : privacy.noiseMultiplier;
  return { spent: budget.spent, delta: budget.delta, noiseMultiplier };
}

/**
 * A limit to propose. What many rounds cost that protect single examples only the ledger can say: twice the ε of one pays for more. Whoever
 * writes the manifest decides what that is, so none is proposed where it protects nobody.
 */
export function proposal(view: View): number | null {
  const past = spending(view);
  if (past) return limitFor(PROPOSED_ROUNDS, past);
  const more = view.budget?.ifOneMore;
  return more == null || (view.manifest && isWeak(view.manifest)) ? null : roundUp(2 * more);
}

/** What a limit pays for; null where that is not one round. */
export function paysFor(limit: number, view: View): string | null {
  const past = spending(view);
  if (!past) return limit >= (view.budget?.ifOneMore ?? Infinity) ? "at least one more update" : null;
  const rounds = limit >= 0 ? roundsWithin(limit, past) : 0;
  return rounds > 0 ? `about ${format.plural(rounds, "update")}` : null;
}

/** Explains what a round costs, proposes a limit, and lets the person decide. */
export function showRaise(view: View): void {
  const { budget, manifest } = view;
  if (budget?.ifOneMore == null) return;
  const limit = proposal(view);
  const after = format.epsilon(budget.ifOneMore);
  const words = warning(manifest, budget);
  const cost = budget.spent > 0 ? `You have spent ε = ${format.epsilon(budget.spent)}, and one more round takes you to ${after}` : `One round costs ε = ${after}`;
  say(element("raise-text"), `${words?.cause && budget.spent === 0 ? words.cause : `${cost}.`} Your limit is ${format.epsilon(budget.epsilon)}, so nothing is sent unless you allow more.`);
  say(element("raise-why"), words ? `${words.why} ${words.needed}` : "");
  say(element("raise-honest"), words ? "So allow it for the demonstration only, with data that may be seen, such as the MNIST digits." : "Allow more if that is worth it to you. Staying out costs nothing.");
  byId("raise-value", HTMLInputElement).value = limit === null ? "" : String(limit);
  describeRaise(view);
  element("raise").hidden = false;
  drawWarnings(view);
  element("raise").scrollIntoView({ block: "nearest" });
  element("raise-title").focus({ preventScroll: true });
}

/** Says on the button what is allowed, and below it what that pays for. */
function describeRaise(view: View): void {
  const value = byId("raise-value", HTMLInputElement).valueAsNumber;
  const paid = paysFor(value, view);
  const go = button("raise-go");
  go.disabled = paid === null;
  say(go, value >= 0 ? `Allow ε = ${format.epsilon(value)} and join` : "Allow and join");
  const pays = paid === null ? "It does not pay for one round" : `It pays for ${paid}, of all tabs of this browser together`;
  say(element("raise-pays"), `${pays}. It is kept for later visits; lower it at any time under “Privacy budget”. What is spent stays spent.`);
}

export function hideRaise(): void {
  element("raise").hidden = true;
}

/** The alarms beside the button and in the card. */
function drawWarnings({ manifest, budget }: View): void {
  const words = warning(manifest, budget);
  // The panel that asks for a higher limit says the same, and more.
  element("join-alarm").hidden = !words || !element("raise").hidden;
  element("budget-alarm").hidden = !words;
  say(element("join-alarm-title"), words?.title ?? "");
  say(element("join-alarm-text"), words?.short ?? "");
  element("join-alarm-more").hidden = !words?.needed;
  say(element("budget-alarm-title"), words?.title ?? "");
  say(element("budget-alarm-text"), words?.short ?? "");
  say(element("budget-alarm-why"), words?.why ?? "");
  say(element("budget-alarm-needed"), words?.needed ?? "");
}

export function drawBudget(view: View): void {
  const { budget, manifest } = view;
  drawWarnings(view);
  if (!budget) return;
  say(element("spent"), format.epsilon(budget.spent));
  say(element("limit"), format.epsilon(budget.epsilon));
  const share = Math.min(1, budget.epsilon > 0 ? budget.spent / budget.epsilon : Number(budget.spent > 0));
  const meter = element("meter");
  meter.setAttribute("aria-valuenow", String(Math.round(100 * share)));
  meter.setAttribute("aria-valuetext", `ε ${format.epsilon(budget.spent)} of ${format.epsilon(budget.epsilon)} spent`);
  meter.dataset["tone"] = share > 0.9 ? "bad" : share > 0.6 ? "warn" : "good";
  if (meter.firstElementChild instanceof HTMLElement) meter.firstElementChild.style.inlineSize = `${100 * share}%`;
  say(element("left"), `ε ${format.number(budget.left)}`);
  say(element("delta"), format.delta(budget.delta));
  say(element("per-round"), perRound(manifest));
  say(element("one-more"), budget.ifOneMore === null ? "–" : `ε ${format.epsilon(budget.ifOneMore)}`);
  say(element("debits"), format.count(budget.rounds));
  say(element("epsilon-means"), explain(budget));
  const honest = element("budget-honest");
  const words = element("budget-alarm").hidden ? worthOf(budget.epsilon) : null;
  honest.hidden = words === null;
  say(honest, words ?? "");
  const field = byId("limit-value", HTMLInputElement);
  if (document.activeElement !== field && field.dataset["from"] !== String(budget.epsilon)) {
    field.dataset["from"] = String(budget.epsilon);
    field.value = String(Number(budget.epsilon.toPrecision(6)));
  }
}

function perRound(manifest: ManifestView | null): string {
  if (!manifest) return "–";
  const { privacy } = manifest;
  if (privacy.mode === "none") return "no promise";
  return `ε ${format.epsilon(privacy.epsilonPerRound)}${privacy.mode === "example" ? ", for any one example" : privacy.mode === "central" ? ", not towards the relay" : ""}`;
}
