// What an ε means, in words.

import type { BudgetView } from "./types.js";

/** A number for people: two digits below 100, and powers of ten above a million. */
function about(value: number): string {
  if (value >= 1e6) return Number.isFinite(value) && value < 1e300 ? `10^${Math.floor(Math.log10(value))}` : "more than any number worth the name";
  const digits = Number(value.toPrecision(value < 10 ? 2 : 3));
  return digits.toLocaleString("en");
}

/**
 * What the spent ε means, in plain words: one paragraph of text for the person whose ledger it is.
 *
 * ```ts
 * import { explain } from "unsaid";
 * element.textContent = explain(await client.budget.get());
 * ```
 */
export function explain({ spent, epsilon, delta, rounds, unit }: BudgetView): string {
  const limit = `Your limit is ε = ${about(epsilon)}: a factor of ${about(Math.exp(epsilon))}.`;
  if (rounds === 0) return `Nothing was sent that has a cost, so nobody can have learned anything from it. ${limit}`;
  const odds = Math.exp(spent);
  // With even odds before, e^ε to 1 afterwards.
  const sure = odds / (1 + odds);
  const percent = sure > 0.999 ? "practically certain" : `at most ${(100 * sure).toFixed(sure > 0.99 ? 1 : 0)} % sure`;
  const updates = rounds === 1 ? "The update that you sent has cost" : `The ${rounds.toLocaleString("en")} updates that you sent have together cost`;
  const guesses = unit === "update" ? "two guesses at what your data are, each as likely as the other" : "to guess whether some one example is among your data, the one as likely as the other";
  const not = unit === "update" ? "" : " Of what your examples have in common more can be learned.";
  return (
    `${updates} ε = ${about(spent)}. Whoever had ${guesses}, and has seen ` +
    `all that you sent, can be ${percent} of ${unit === "update" ? "one of them" : "the answer"}: the odds shift by a factor of ${about(odds)} at most, except with a chance of about ` +
    `${delta.toLocaleString("en", { maximumSignificantDigits: 2 })}.${not} ${limit}`
  );
}
