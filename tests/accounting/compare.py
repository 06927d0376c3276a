"""Compares the accountants of unsaid-privacy with those of dp-accounting, on random settings.

    python3 -m venv venv && venv/bin/pip install -r tests/accounting/requirements.txt
    cargo build --release -p unsaid-privacy --example accountant
    venv/bin/python tests/accounting/compare.py target/release/examples/accountant [SETTINGS] [SEED]

For each setting it asks both for the Renyi curve and for epsilon by the privacy loss distribution, and ends with exit code 1 unless
- own loss-distribution epsilon is within 0.5 % of theirs, and never below their optimistic bound;
- own Renyi curve is within 0.1 % of theirs at every whole order, and at fractional ones within 0.1 % of a numerical integral and not
  above theirs; and the epsilon that comes of it is within 0.1 % of theirs, computed from that curve.
At fractional orders dp-accounting 0.6 adds up the magnitudes of a series whose terms alternate in sign, which is an upper bound and, at
orders below 2, up to 20 times the divergence. So `rdp_epsilon_of_their_own_curve`, which is printed and not judged, can be a few percent.
Settings are Poisson sampling under add/remove and under replace-one, no sampling, and, for Renyi only, sampling without replacement
under replace-one (they have no loss distribution for it, and no Renyi curve for Poisson sampling under replace-one).
"""

import json
import math
import random
import subprocess
import sys

import numpy as np
from dp_accounting import dp_event
from dp_accounting import privacy_accountant
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import rdp_privacy_accountant as rdp

REPLACE_ONE = privacy_accountant.NeighboringRelation.REPLACE_ONE
ADD_REMOVE = privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE
KINDS = [("poisson", "add-remove"), ("poisson", "replace-one"), ("all", "add-remove"), ("subset", "replace-one")]


def log_uniform(generator, low, high):
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def setting(generator, kind):
    """A setting with an epsilon that means something: neither next to nothing nor hundreds."""
    sampling, adjacency = kind
    rate = 1.0 if sampling == "all" else log_uniform(generator, 1e-3, 0.3)
    sigma = log_uniform(generator, 0.6, 10.0)
    steps = int(log_uniform(generator, 1, 5_000))
    delta = log_uniform(generator, 1e-8, 1e-3)
    return sampling, rate, sigma, steps, delta, adjacency


def ask(program, settings):
    lines = "".join(" ".join(map(str, one)) + "\n" for one in settings)
    answer = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def their_rdp(sampling, rate, sigma, steps, adjacency):
    """None where they have no curve. Their noise multiplier is in units of the largest distance of two sums."""
    if sampling == "subset":
        accountant = rdp.RdpAccountant(neighboring_relation=REPLACE_ONE)
        event = dp_event.SampledWithoutReplacementDpEvent(1_000_000, round(rate * 1e6), dp_event.GaussianDpEvent(sigma / 2))
    elif adjacency == "replace-one":
        return None
    else:
        accountant = rdp.RdpAccountant(neighboring_relation=ADD_REMOVE)
        event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma))
    return accountant.compose(event, steps)


def integral(q, sigma, orders):
    """The Renyi divergence of (1-q)N(0, s^2) + qN(1, s^2) from N(0, s^2) by the trapezium rule, less 1 inside the integral."""
    y = np.linspace(-13 * sigma, max(orders) + 13 * sigma, 40_001)
    loss = np.log1p(q * np.expm1((2 * y - 1) / (2 * sigma**2)))
    density = np.exp(-(y**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    excess = [np.trapezoid(density * (np.expm1(a * loss) - a * np.expm1(loss)), y) for a in orders]
    return np.log1p(np.array(excess)) / (np.array(orders) - 1)


def their_pld(rate, sigma, steps, delta, adjacency, pessimistic):
    # Their default grid is 10^-4; where one step's loss spreads less, it is made finer, so that it is the loss that is compared.
    spread = rate * math.sqrt(math.expm1(1 / sigma**2)) if rate < 1 else 1 / sigma
    loss = pld.from_gaussian_mechanism(
        sigma,
        sampling_prob=rate,
        value_discretization_interval=min(1e-4, spread / 50) if steps * spread**2 < 4 else 1e-3 if spread > 0.1 else 1e-4,
        pessimistic_estimate=pessimistic,
        use_connect_dots=pessimistic,
        neighboring_relation=REPLACE_ONE if adjacency == "replace-one" else ADD_REMOVE,
    )
    return loss.self_compose(steps).get_epsilon_for_delta(delta)


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 240
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    generator = random.Random(seed)
    settings, answers = [], []
    while len(settings) < count:
        drawn = [setting(generator, KINDS[(len(settings) + i) % 4]) for i in range(count - len(settings))]
        # The rate of a subset must be a whole number of a million.
        drawn = [(s, max(round(r, 6), 1e-6), *rest) for s, r, *rest in drawn]
        for one, answer in zip(drawn, ask(program, drawn)):
            if answer["upper"] is not None and 0.02 < answer["upper"] < 60:
                settings.append(one)
                answers.append(answer)
    worst = {"rdp_curve": 0.0, "rdp_epsilon": 0.0, "rdp_epsilon_of_their_own_curve": 0.0, "pld": 0.0, "pld_below_optimistic": 0.0}
    counts = {"rdp": 0, "pld": 0}
    failures = []
    for one, answer in zip(settings, answers):
        sampling, rate, sigma, steps, delta, adjacency = one
        theirs = their_rdp(sampling, rate, sigma, steps, adjacency)
        if theirs is not None:
            counts["rdp"] += 1
            own, their = np.array(answer["rdp"]), theirs.rdp
            above = False
            if sampling == "poisson":
                orders = np.array(theirs.orders)
                broken = orders % 1 != 0
                above = bool(np.any(own[broken] > their[broken] * (1 + 1e-6)))
                their[broken] = steps * integral(rate, sigma, list(orders[broken]))
            seen = np.isfinite(their) & (their > 1e-9 * steps)
            curve = float(np.max(np.abs(own[seen] / their[seen] - 1)))
            corrected, _ = rdp.compute_epsilon(theirs.orders, their, delta)
            epsilon = abs(answer["rdp_epsilon"] / corrected - 1)
            plain = abs(answer["rdp_epsilon"] / theirs.get_epsilon(delta) - 1)
            worst["rdp_curve"] = max(worst["rdp_curve"], curve)
            worst["rdp_epsilon"] = max(worst["rdp_epsilon"], epsilon)
            worst["rdp_epsilon_of_their_own_curve"] = max(worst["rdp_epsilon_of_their_own_curve"], plain)
            if curve > 1e-3 or epsilon > 1e-3 or above:
                failures.append(("rdp", one, curve, epsilon))
        if sampling != "subset":
            counts["pld"] += 1
            upper = their_pld(rate, sigma, steps, delta, adjacency, True)
            lower = their_pld(rate, sigma, steps, delta, adjacency, False)
            gap = answer["upper"] / upper - 1
            below = max(0.0, lower - answer["upper"])
            worst["pld"] = max(worst["pld"], abs(gap))
            worst["pld_below_optimistic"] = max(worst["pld_below_optimistic"], below)
            if abs(gap) > 5e-3 or below > 0:
                failures.append(("pld", one, answer["upper"], upper, lower))
    for failure in failures:
        print("FAILED", *failure)
    print(json.dumps({"settings": len(settings), "compared": counts, "worst": worst, "failed": len(failures)}))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
