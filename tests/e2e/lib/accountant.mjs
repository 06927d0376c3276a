// An accountant of our own, written from the papers and not from the Rust code: the tests compare the two.

/** ρ of one round of zero-concentrated differential privacy when one person's whole update may be replaced by any other:
 * sensitivity 2Δ, noise σ = z Δ, so ρ = (2Δ)² / (2σ²) = 2/z² (Bun, Steinke 2016, Proposition 1.6). */
export const rhoPerRound = (noiseMultiplier) => 2 / noiseMultiplier ** 2;

/** The least ε at δ that ρ-zCDP gives: the minimum over α > 1 of
 * αρ + ln(1/(αδ))/(α−1) + ln(1 − 1/α)  (Canonne, Kamath, Steinke 2020, Proposition 12 solved for ε). */
export function epsilonOf(rho, delta) {
  if (rho === 0) return 0;
  // In t = ln(α − 1) the function falls and then rises; golden-section search finds its lowest point.
  const at = (t) => {
    const alpha = 1 + Math.exp(t);
    return alpha * rho - Math.log(alpha * delta) / (alpha - 1) + Math.log1p(-1 / alpha);
  };
  const golden = (Math.sqrt(5) - 1) / 2;
  let [low, high] = [-20, 40];
  for (let step = 0; step < 300; step++) {
    const [left, right] = [high - golden * (high - low), low + golden * (high - low)];
    if (at(left) < at(right)) high = right;
    else low = left;
  }
  return Math.max(0, at((low + high) / 2));
}

/** The ledger's ε of ρ at its budget's δ. Rounds are chosen as one goes, so δ is shared out among the orders that may decide: 7/8 of it
 * for noise on whole updates (PRIVACY.md, “The ledger”). */
export const ledgerEpsilon = (rho, delta) => epsilonOf(rho, (7 / 8) * delta);

/** The orders at which the ledger counts what steps of training cost that have noise on their gradients. */
const ORDERS = [2, 3, 5, 8, 12, 20, 36, 72];

/** The ledger's ε of `steps` such steps, each of which takes an example with probability `rate`, at its share of δ for each order, 1/64:
 * ln A/(α−1) a step, A = Σ C(α,k)(1−q)^(α−k) q^k e^((k²−k)/2z²) (Mironov, Talwar, Zhang 2019, section 3.3). */
export function sampledEpsilon(steps, rate, noiseMultiplier, delta) {
  const at = (alpha) => {
    const terms = [];
    let lnChoose = 0;
    for (let k = 0; k <= alpha; k++) {
      if (k > 0) lnChoose += Math.log((alpha - k + 1) / k);
      terms.push(lnChoose + (alpha - k) * Math.log1p(-rate) + k * Math.log(rate) + (k * k - k) / (2 * noiseMultiplier ** 2));
    }
    const most = Math.max(...terms);
    const lnA = most + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - most), 0));
    return (steps * lnA) / (alpha - 1) + Math.log1p(-1 / alpha) - Math.log((alpha * delta) / 64) / (alpha - 1);
  };
  return Math.max(0, Math.min(...ORDERS.map(at)));
}
