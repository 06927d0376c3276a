// What rounds cost, for proposals only: what was spent, and whether a round may begin, the ledger says. PRIVACY.md, “What it
// costs”, has the formulas.

/** The ledger's share of δ for noise on whole updates: the rest is for tasks that protect each example. */
const SHARE = 7 / 8;

/** ρ of one round whose noise is `multiplier` times the bound of an update, when one update is replaced by any other. */
export const rhoPerRound = (multiplier: number): number => 2 / multiplier ** 2;

/** The ε at δ that the ledger has for ρ: at its share of δ, the least, over α > 1, of ρα + ln(1/(αδ))/(α − 1) + ln(1 − 1/α). */
export function epsilonOf(rho: number, budgetDelta: number): number {
  if (rho <= 0) return 0;
  const delta = SHARE * budgetDelta;
  const at = (t: number): number => {
    const above = Math.exp(t); // α − 1
    return rho * (1 + above) - (Math.log1p(above) + Math.log(delta)) / above + Math.log(above / (1 + above));
  };
  // It falls, then rises: golden section.
  const golden = (Math.sqrt(5) - 1) / 2;
  let [low, high] = [-15, 40];
  for (let turn = 0; turn < 120; turn++) {
    const span = golden * (high - low);
    if (at(high - span) < at(low + span)) high = low + span;
    else low = high - span;
  }
  return Math.max(0, at((low + high) / 2));
}

/** The ρ whose ε at δ is `epsilon`. */
export function rhoOf(epsilon: number, delta: number): number {
  let [low, high] = [0, 1];
  while (epsilonOf(high, delta) < epsilon && high < 1e12) high *= 2;
  for (let turn = 0; turn < 60; turn++) {
    const middle = (low + high) / 2;
    if (epsilonOf(middle, delta) <= epsilon) low = middle;
    else high = middle;
  }
  return low;
}

/** What a budget has left to say about: the spent ε, the δ, and the task's noise. */
export interface Spending {
  readonly spent: number;
  readonly delta: number;
  readonly noiseMultiplier: number;
}

/** A limit that pays for `rounds` more rounds, rounded up to two digits. */
export function limitFor(rounds: number, { spent, delta, noiseMultiplier }: Spending): number {
  // A thousandth more, because the exact σ is not in the terms, and the spent ε is rounded up.
  const epsilon = 1.001 * epsilonOf(rhoOf(spent, delta) + rounds * rhoPerRound(noiseMultiplier), delta);
  return roundUp(epsilon);
}

/** Rounded up to two digits. */
export function roundUp(epsilon: number): number {
  const unit = 10 ** (Math.floor(Math.log10(epsilon)) - 1);
  return Number((Math.ceil(epsilon / unit) * unit).toPrecision(2));
}

/** How many more rounds a limit pays for: never more than the ledger will allow. */
export function roundsWithin(limit: number, { spent, delta, noiseMultiplier }: Spending): number {
  const left = rhoOf(limit / 1.0001, delta) - rhoOf(spent, delta);
  return Math.max(0, Math.floor(left / rhoPerRound(noiseMultiplier)));
}
