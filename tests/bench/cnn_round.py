"""One round of the simulator beside the same round as a plain PyTorch loop and the engine alone, in turns on the same cores.

    cargo build --release -p unsaid-relay -p unsaid-bench-native
    python3 tests/bench/round.py [--turns 3] [--data .cache/mnist]

The round: the CNN of McMahan et al. 2017 (1,663,370 parameters), ten clients of 600 digits, five epochs at batch 10: 3,000 steps of SGD; then
the mean of the ten models, and its accuracy on the 10,000 held-out digits. Two cores. All figures are seconds by the clock:
- *simulator*: the second round of a run, with the choice of clients, clipping, encoding, adding up, publishing and evaluating;
- *PyTorch*: the loop as people write it, one client after the other, with as many threads as there are cores, and with one; made ready before
  the clock starts, on digits of noise (the time does not depend on them);
- *two PyTorch processes*, five clients each, one thread each: what somebody writes who knows that it is quicker. The mean and the
  evaluation are left out of it;
- *engine*: as many steps by the engine alone, without a round around them: two processes with one thread each, from the median step.
Any PyTorch from 1.13 on will do (Debian: python3-torch).
"""

import argparse
import copy
import json
import multiprocessing
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch
from torch import nn

from pytorch import Convolutions

ROOT = pathlib.Path(__file__).parent.parent.parent
CLIENTS, EXAMPLES, EPOCHS, BATCH, HELD_OUT = 10, 600, 5, 10, 10_000
STEPS = CLIENTS * EXAMPLES * EPOCHS // BATCH


def digits(seed, count):
    generator = np.random.default_rng(seed)
    x = generator.random((count, 784), dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(generator.integers(0, 10, count))


def train(model, x, y):
    """Local training of one client; `model` is changed."""
    optimizer, loss_of = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for at in order.split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(x[at]), y[at]).backward()
            optimizer.step()


def torch_round(threads):
    torch.set_num_threads(threads)
    model = Convolutions(5, 5, [32, 64], [512])
    data = [digits(client, EXAMPLES) for client in range(CLIENTS)]
    x, y = digits(CLIENTS, HELD_OUT)
    start = time.perf_counter()
    total = None
    for client in data:
        local = copy.deepcopy(model)
        train(local, *client)
        state = local.state_dict()
        total = state if total is None else {name: total[name] + state[name] for name in state}
    model.load_state_dict({name: value / CLIENTS for name, value in total.items()})
    with torch.no_grad():
        right = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(x.split(500), y.split(500)))
    assert 0 <= right <= HELD_OUT
    return time.perf_counter() - start


def torch_share(ready, go):
    torch.set_num_threads(1)
    model = Convolutions(5, 5, [32, 64], [512])
    data = [digits(client, EXAMPLES) for client in range(CLIENTS // 2)]
    ready.release()
    go.wait()
    for client in data:
        train(copy.deepcopy(model), *client)


def torch_processes():
    """Fresh processes: threads of PyTorch do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Semaphore(0), context.Event()
    halves = [context.Process(target=torch_share, args=(ready, go)) for _ in range(2)]
    for half in halves:
        half.start()
    for _ in halves:
        ready.acquire()
    start = time.perf_counter()
    go.set()
    for half in halves:
        half.join()
    assert all(half.exitcode == 0 for half in halves)
    return time.perf_counter() - start


def simulator(data):
    """From the line of the first round to that of the second."""
    with tempfile.TemporaryDirectory() as folder:
        lines = pathlib.Path(folder) / "rounds.jsonl"
        command = [ROOT / "target/release/unsaid-relay", "simulate", ROOT / "server/tasks/mnist-cnn.toml"]
        command += ["--data", data, "--clients", "100", "--cohort", "10", "--rounds", "2", "--threads", "2"]
        command += ["--set", f"training.epochs={EPOCHS}", "--json", lines]
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reached = []
        while program.poll() is None and len(reached) < 2:
            time.sleep(0.01)
            rounds = lines.read_text().count('"type":"round"') if lines.exists() else 0
            if rounds > len(reached):
                reached.append(time.perf_counter())
        # What it does after the last round is not measured.
        program.kill()
        program.wait()
        first, second = reached
        return second - first


def engine():
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{half}.json" for half in range(2)]
        command = [ROOT / "target/release/unsaid-bench-native", "--cpu", "--threads", "1", "--batch", str(BATCH), "--json"]
        halves = [subprocess.Popen([*command, file], stdout=subprocess.DEVNULL) for file in files]
        assert all(half.wait() == 0 for half in halves)
        rows = [json.loads(file.read_text())["steps"] for file in files]
        steps = [next(row["sgd_ms"] for row in found if row["workload"] == "cnn") for found in rows]
        return max(steps) / 1e3 * STEPS / 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--data", default=str(ROOT / ".cache/mnist"))
    given = parser.parse_args()
    runs = {
        "simulator": lambda: simulator(given.data),
        "PyTorch, 2 threads": lambda: torch_round(2),
        "PyTorch, 1 thread": lambda: torch_round(1),
        "two PyTorch processes": torch_processes,
        "engine": engine,
    }
    taken = {name: [] for name in runs}
    for _ in range(given.turns):
        for name, run in runs.items():
            taken[name].append(run())
            print(f"{name:24} {taken[name][-1]:6.1f} s", flush=True)
    print(f"\ntorch {torch.__version__}; medians of {given.turns} turns")
    ours = statistics.median(taken["simulator"])
    for name, seconds in taken.items():
        print(f"{name:24} {statistics.median(seconds):6.1f} s  {statistics.median(seconds) / ours:5.2f} of the simulator's")


if __name__ == "__main__":
    main()
