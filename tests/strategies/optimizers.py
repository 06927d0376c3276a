"""Server optimisers, computed apart from the relay: 60 decimal digits, and sums over all rounds where the relay keeps a state.

    python3 tests/strategies/optimizers.py > tests/strategies/optimizers.json

Written from algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295) and section 4.3 of Hsu, Qi, Brown 2019 (arXiv:1909.06335):

    FedAvg      x_T = eta sum_t D_t
    FedAvgM     x_T = eta sum_t sum_{i<=t} beta^(t-i) D_i = eta sum_i D_i (1 - beta^(T-i+1)) / (1 - beta)
    the others  x_T = eta sum_t M_t / (sqrt(V_t) + tau), with M_t = (1 - b1) sum_{i<=t} b1^(t-i) D_i and
    FedAdagrad  V_t = tau^2 + sum_{i<=t} D_i^2
    FedAdam     V_t = b2^t tau^2 + (1 - b2) sum_{i<=t} b2^(t-i) D_i^2
    FedYogi     V_t = tau^2 + (1 - b2) sum_{i<=t} s_i D_i^2, where the s_i are those of the table SIGNS: +1 where D_i^2 is above
                V_(i-1), -1 where it is below, checked here.
"""

import json
from decimal import Decimal, getcontext

getcontext().prec = 60

# Growing, shrinking and turning.
DIRECTIONS = [Decimal(d) for d in "0.1 0.2 -0.05 0 0.4 -0.3 0.001 0.001".split()]
# 0.01 > 1e-6; 0.04 > 1.01e-4; 0.0025 > 5.01e-4; 0 < 5.26e-4 (and adds nothing); 0.16, 0.09 above; 1e-6 below, twice.
SIGNS = [1, 1, 1, -1, 1, 1, -1, -1]


def fed_avg(rounds, eta):
    return eta * sum(rounds)


def fed_avg_m(rounds, eta, beta):
    last = len(rounds)
    return eta * sum(d * (1 - beta ** (last - i)) / (1 - beta) for i, d in enumerate(rounds))


def power(base, exponent):
    return Decimal(1) if exponent == 0 else base**exponent


def adaptive(rounds, eta, b1, tau, squares):
    x = Decimal(0)
    for t in range(1, len(rounds) + 1):
        m = (1 - b1) * sum(power(b1, t - 1 - i) * rounds[i] for i in range(t))
        x += eta * m / (squares(rounds[:t]).sqrt() + tau)
    return x


def adagrad(tau):
    return lambda rounds: tau**2 + sum(d * d for d in rounds)


def adam(tau, b2):
    def squares(rounds):
        t = len(rounds)
        return power(b2, t) * tau**2 + (1 - b2) * sum(power(b2, t - 1 - i) * d * d for i, d in enumerate(rounds))

    return squares


def yogi(tau, b2):
    def squares(rounds):
        total = tau**2 + (1 - b2) * sum(s * d * d for s, d in zip(SIGNS, rounds))
        if len(rounds) > 1:
            last = squares(rounds[:-1])
            assert rounds[-1] ** 2 != last and (rounds[-1] ** 2 > last) == (SIGNS[len(rounds) - 1] > 0)
        return total

    return squares


def path(of):
    return [float(of(DIRECTIONS[:t])) for t in range(1, len(DIRECTIONS) + 1)]


half, tenth, tau = Decimal("0.5"), Decimal("0.1"), Decimal("0.001")
b1, b2, slow = Decimal("0.9"), Decimal("0.99"), Decimal("0.3")
rows = [
    ({"type": "fed-avg", "learning_rate": 0.5}, lambda r: fed_avg(r, half)),
    ({"type": "fed-avg-m", "learning_rate": 0.5, "momentum": 0.9}, lambda r: fed_avg_m(r, half, b1)),
    (
        {"type": "fed-adagrad", "learning_rate": 0.1, "beta1": 0.3, "tau": 0.001},
        lambda r: adaptive(r, tenth, slow, tau, adagrad(tau)),
    ),
    (
        {"type": "fed-adam", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
        lambda r: adaptive(r, tenth, b1, tau, adam(tau, b2)),
    ),
    (
        {"type": "fed-yogi", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 0.001},
        lambda r: adaptive(r, tenth, b1, tau, yogi(tau, b2)),
    ),
]
table = {
    "directions": [float(d) for d in DIRECTIONS],
    "optimizers": [{"server": server, "path": path(of)} for server, of in rows],
}
print(json.dumps(table, indent=1))
