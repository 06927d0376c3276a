// The person's privacy limit.

import type { Budget, BudgetView, ManifestView } from "unsaid";

import { button, byId, element, say } from "./dom.js";
import * as format from "./format.js";
import type { View } from "./view.js";

/** Above this, ε promises little: e¹⁰ is 22,000. */
const LARGE = 10;
const KEY = "unsaid-limit";
const DEFAULT_LIMIT = 8;

/** The limit that the person chose on this device, or the cautious default. */
export function rememberedLimit(): number {
  try {
    const value = Number(localStorage.getItem(KEY));
    return Number.isFinite(value) && value > 0 ? value : DEFAULT_LIMIT;
  } catch {
    return DEFAULT_LIMIT;
  }
}

export function rememberLimit(epsilon: number): void {
  try {
    localStorage.setItem(KEY, String(epsilon));
  } catch {
    // Storage is blocked: the limit lasts until the page is left.
  }
}

export interface BudgetHost {
  readonly view: View;
  /** Sets the limit; rejects where it cannot be set. */
  readonly setLimit: (budget: Budget) => Promise<void>;
  readonly join: () => void;
}

export function createBudget(host: BudgetHost): void {
  const field = byId("limit-value", HTMLInputElement);
  const change = async (input: HTMLInputElement): Promise<boolean> => {
    const delta = host.view.budget?.delta;
    const epsilon = input.valueAsNumber;
    if (delta === undefined || !(epsilon > 0)) return false;
    await host.setLimit({ epsilon, delta });
    return true;
  };
  byId("limit-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    change(field).then(
      (done) => say(element("limit-said"), done ? `Your limit is ε = ${format.epsilon(field.valueAsNumber)} now.` : "Give a number above 0."),
      () => say(element("limit-said"), "The limit could not be set."),
    );
  });
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
  button("raise-no").addEventListener("click", () => {
    hideRaise();
    button("join").focus();
  });
}

/** Whether the next round costs more than the person allows. */
export const exceeds = (budget: BudgetView | null): boolean => budget?.ifOneMore != null && budget.ifOneMore > budget.epsilon;

/** Explains what a round costs, and lets the person decide. */
export function showRaise({ budget }: View): void {
  if (budget?.ifOneMore == null) return;
  const after = format.epsilon(budget.ifOneMore);
  const spent = budget.spent > 0 ? `You have spent ε = ${format.epsilon(budget.spent)}. ` : "";
  say(element("raise-text"), `${spent}One more round takes you to ε = ${after}, at δ = ${format.delta(budget.delta)}. Your limit is ${format.epsilon(budget.epsilon)}, so nothing is sent.`);
  say(element("raise-honest"), honesty(budget.ifOneMore) ?? "You can raise your limit if that is worth it to you. Staying out costs nothing.");
  const value = byId("raise-value", HTMLInputElement);
  value.value = String(Number(Number(budget.ifOneMore * 1.0001).toPrecision(4)));
  if (value.valueAsNumber < budget.ifOneMore) value.value = String(Math.ceil(budget.ifOneMore));
  element("raise").hidden = false;
  element("raise-title").focus();
}

export function hideRaise(): void {
  element("raise").hidden = true;
}

function honesty(epsilon: number): string | null {
  if (epsilon <= LARGE) return null;
  return `An ε above about ${LARGE} promises little. With so few participants, noise that still lets the model learn cannot hide one update well. Join for the demonstration, with data that may be seen.`;
}

export function drawBudget({ budget, manifest }: View): void {
  const none = manifest?.privacy.mode === "none";
  element("no-noise").hidden = !none;
  element("join-alarm").hidden = !none;
  if (!budget) return;
  say(element("spent"), format.epsilon(budget.spent));
  say(element("limit"), format.epsilon(budget.epsilon));
  const share = Math.min(1, budget.epsilon > 0 ? budget.spent / budget.epsilon : 0);
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
  const honest = element("budget-honest");
  const words = honesty(Math.max(budget.epsilon, budget.spent));
  honest.hidden = words === null || none;
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
  return privacy.mode === "local" ? `ε ${format.epsilon(privacy.epsilonPerRound)}` : "no promise";
}
