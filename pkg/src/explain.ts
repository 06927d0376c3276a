// What an ε means, in words.

import type { BudgetView } from "./types.js";

/** A number for people: two digits below 100, and powers of ten above a million. */
function about(value: number): string {
  if (value >= 1e6) return Number.isFinite(value) ? `10^${Math.floor(Math.log10(value))}` : "∞";
  const digits = Number(value.toPrecision(value < 10 ? 2 : 3));
  return digits.toLocaleString("en");
}

/**
 * What the person's limit promises, in plain words: one paragraph of text for the person whose ledger it is. The promise is that of the
 * limit, as it was set before; what is spent is the sum booked so far, and promises nothing by itself, since which rounds were taken may
 * have gone by what came of earlier ones.
 *
 * ```ts
 * import { explain } from "unsaid";
 * element.textContent = explain(await client.budget.get());
 * ```
 */
export function explain({ spent, epsilon, delta, rounds, unit }: BudgetView): string {
  const odds = Math.exp(epsilon);
  const shift = odds < 1e300 ? `by a factor of ${about(odds)} at most` : "without any bound worth the name";
  // With even odds before, e^ε to 1 afterwards; written so that it is a number for every ε.
  const sure = 1 / (1 + Math.exp(-epsilon));
  const percent = sure > 0.999 ? "practically certain" : `at most ${(100 * sure).toFixed(sure > 0.99 ? 1 : 0)} % sure`;
  const guesses = unit === "update" ? "two guesses at what your data are, each as likely as the other" : "to guess whether some one example is among your data, the one as likely as the other";
  const not = unit === "update" ? "" : " Of what your examples have in common more can be learned.";
  const booked =
    rounds === 0
      ? "Nothing was sent yet that has a cost."
      : `${rounds === 1 ? "The update that you sent is" : `The ${rounds.toLocaleString("en")} updates that you sent are`} booked with ε = ${about(spent)} so far.`;
  return (
    `Your limit is ε = ${about(epsilon)}. Whoever has ${guesses}, and sees all that you ever send within it, ` +
    `can be ${percent} of ${unit === "update" ? "one of them" : "the answer"}: the odds shift ${shift}, except with a chance of about ` +
    `${delta.toLocaleString("en", { maximumSignificantDigits: 2 })}. A limit that is raised later, after a look at what came of it, promises less.${not} ${booked}`
  );
}
