"""Accuracy against epsilon, measured: local and central noise, 10 to 10,000 clients, on MNIST.

    cargo build --release -p unsaid-relay
    python3 tests/curves/curves.py target/release/unsaid-relay .cache/mnist lr mlp target --kept target/curves.jsonl > curves.md

It takes hours; runs that ended are kept in the file named last, and not done again.

Each cell is one run of `unsaid-relay simulate`, seed 1, of 20 rounds; epsilon is what the simulator told at its end, for the client that
took part most often, at delta = 1e-5: replace-one for local noise, add/remove for central. Nothing is taken off for sampling. The noise
multiplier is the least with which the rounds of one client cost the epsilon aimed at (Canonne, Kamath, Steinke 2020, Corollary 13).

Clients split the 60,000 training digits evenly, and each round takes as many as `PLANS` says; where those are not all, clients take turns.
One setting for each model, not tuned for each cell.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

DELTA = 1e-5
ROUNDS = 20
EPSILONS = (0.5, 2.0, 8.0)

# Clients: (clients of a round, local epochs).
PLANS = {10: (10, 1), 100: (100, 1), 1_000: (1_000, 5), 10_000: (1_000, 5)}
# The noise of a mean of local updates falls with how many were asked in all, not with how many in one round: one round each is enough,
# and costs the least time.
LOCAL = {1_000: (50, 5), 10_000: (500, 5)}

MODELS = {
    "lr": ("server/tasks/mnist-lr.toml", ["update.clip_l2=0.5"]),
    "mlp": ("server/tasks/mnist.toml", ["update.clip_l2=1.0", "update.grid_step=0.0000152587890625"]),
}


def epsilon_of(rho):
    """The least epsilon at DELTA of rho-zCDP."""

    def at(t):
        above = math.exp(t)
        return rho * (1 + above) - math.log((1 + above) * DELTA) / above + math.log(above / (1 + above))

    low, high, golden = -15.0, 40.0, (math.sqrt(5) - 1) / 2
    for _ in range(200):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if at(left) < at(right):
            high = right
        else:
            low = left
    return at((low + high) / 2)


def rho_of(epsilon):
    low, high = 0.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle) <= epsilon else (low, middle)
    return low


def noise_multiplier(epsilon, participations, sensitivity):
    # A little more: a round's sigma is rounded up, and so is what it costs.
    return 1.001 * sensitivity * math.sqrt(participations / (2 * rho_of(epsilon)))


class Kept:
    """The rounds of every run that ended, in a file, by the run's arguments."""

    def __init__(self, path):
        self.path = path
        self.runs = {}
        if path and os.path.exists(path):
            for line in open(path):
                run = json.loads(line)
                self.runs[run["key"]] = run["rounds"]

    def get(self, key, make):
        if key not in self.runs:
            self.runs[key] = make()
            if self.path:
                with open(self.path, "a") as file:
                    file.write(json.dumps({"key": key, "rounds": self.runs[key]}) + "\n")
        return self.runs[key]


kept = Kept(None)


def simulate(relay, data, task, *rest):
    lines = kept.get(json.dumps([task, *rest]), lambda: rounds_of(relay, data, task, *rest))
    return lines[-1]["accuracy"] * 100, lines[-1]["epsilon"], lines


def rounds_of(relay, data, task, clients, cohort, rounds, settings, evaluate_every):
    with tempfile.NamedTemporaryFile() as told:
        command = [relay, "simulate", task, "--data", data, "--clients", str(clients), "--cohort", str(cohort)]
        command += ["--rounds", str(rounds), "--evaluate-every", str(evaluate_every), "--json", told.name]
        command += ["--turns"] if cohort < clients else []
        for setting in [f"rounds.target_clients={cohort}", f"rounds.min_clients={min(cohort, 10)}", *settings]:
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in open(told.name)]
    return [line for line in lines if line["type"] == "round"]


def plan(mode, clients):
    cohort, epochs = LOCAL.get(clients, PLANS[clients]) if mode == "local" else PLANS[clients]
    return cohort, epochs, math.ceil(ROUNDS * cohort / clients)


def noise(mode, epsilon, participations):
    multiplier = noise_multiplier(epsilon, participations, 2 if mode == "local" else 1)
    settings = [f"privacy.mode={mode}", f"privacy.noise_multiplier={multiplier:.6f}"]
    return settings + (["privacy.adjacency=add-remove", f"privacy.delta={DELTA}"] if mode == "central" else [])


def curves(relay, data, name):
    task, usual = MODELS[name]
    say(f"\n| {name}, noise | epsilon | " + " | ".join(f"{clients:,} clients" for clients in PLANS) + " |")
    say("|---" * (2 + len(PLANS)) + "|")
    for mode in ("none", "central", "local"):
        for epsilon in (None,) if mode == "none" else EPSILONS:
            cells, most = [], 0.0
            for clients in PLANS:
                cohort, epochs, participations = plan(mode, clients)
                terms = ["privacy.mode=none"] if epsilon is None else noise(mode, epsilon, participations)
                settings = [*usual, f"training.epochs={epochs}", *terms]
                accuracy, spent, _ = simulate(relay, data, task, clients, cohort, ROUNDS, settings, ROUNDS)
                cells.append(f"{accuracy:.1f}")
                most = max(most, spent or 0.0)
                if epsilon is not None and spent > epsilon:
                    raise SystemExit(f"{mode}, {clients} clients: epsilon is {spent}, above {epsilon}")
            say(f"| {mode} | {'–' if epsilon is None else f'{most:.2f}'} | " + " | ".join(cells) + " |")


def target(relay, data):
    """784-200-200-10, 100 rounds, adaptive clipping, central noise at (2, 1e-5): 10,000 clients of six digits, 1,000 a round, in turns."""
    clients, cohort, rounds = 10_000, 1_000, 100
    terms = noise("central", 2.0, rounds * cohort // clients)
    settings = [*terms, "training.epochs=5", "update.clip_l2=2", "update.grid_step=0.0000019073486328125"]
    settings += ["privacy.adaptive_clip.initial_l2=0.5", "privacy.adaptive_clip.count_noise=50"]
    task = "server/tasks/mnist-2nn.toml"
    accuracy, spent, lines = simulate(relay, data, task, clients, cohort, rounds, settings, 10)
    say("\n| 784-200-200-10, round | accuracy | epsilon | clip norm |")
    say("|---|---|---|---|")
    for line in lines:
        if line["accuracy"] is not None:
            row = (line["round"], 100 * line["accuracy"], line["epsilon"], line["clip_l2"])
            say("| %d | %.1f | %.3f | %.3f |" % row)


def say(text):
    print(text, flush=True)


def main():
    global kept
    given = argparse.ArgumentParser()
    given.add_argument("relay")
    given.add_argument("data")
    given.add_argument("parts", nargs="*", choices=[*MODELS, "target"], default=[*MODELS, "target"])
    given.add_argument("--kept")
    given = given.parse_args()
    kept = Kept(given.kept)
    for part in given.parts:
        target(given.relay, given.data) if part == "target" else curves(given.relay, given.data, part)


if __name__ == "__main__":
    main()
