"""Training steps of the benchmark's workloads in PyTorch on the CPU, to be read beside `cargo xtask bench native --cpu`.

    python3 tests/bench/pytorch.py [--threads 1] [--batch N] [--only mlp,cnn] [--seconds 2]

Any PyTorch from 1.13 on will do (Debian: python3-torch). A plain loop as people write it: eager, f32, SGD without momentum, zero_grad,
forward, cross-entropy, backward, step. Models, first weights and data are those of tests/bench/web/workloads.mjs; without --batch the
losses of the first 20 steps are compared with the golden ones in tests/vectors/v1/losses.json.
"""

import argparse
import json
import pathlib
import statistics
import time

import numpy as np
import torch
from torch import nn

BATCHES, GOLDEN_STEPS, TIME, VOCABULARY = 8, 20, 20, 2000


def words(seed, count):
    """Values 0 to count - 1 of stream `seed`: mulberry32 by counter."""
    with np.errstate(over="ignore"):
        a = np.uint32(seed) + np.arange(1, count + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
        t = (a ^ (a >> np.uint32(15))) * (np.uint32(1) | a)
        t = (t + (t ^ (t >> np.uint32(7))) * (np.uint32(61) | t)) ^ t
        return t ^ (t >> np.uint32(14))


def glorot(stream, shape, fan_in, fan_out):
    values = words(stream, int(np.prod(shape))).astype(np.float64) / 2**32
    values = (values * 2 - 1) * (6 / (fan_in + fan_out)) ** 0.5
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


class Perceptron(nn.Module):
    def __init__(self, number, lens):
        super().__init__()
        layers = []
        for at, (n, m) in enumerate(zip(lens, lens[1:])):
            layer = nn.Linear(n, m)
            set_to(layer.weight, glorot(1000 * number + 2 * at, (n, m), n, m).T)
            set_to(layer.bias, torch.zeros(m))
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x):
        return self.layers(x)


class Convolutions(nn.Module):
    """Images arrive as [batch, 28, 28, 1]; PyTorch's own layout is channels first."""

    def __init__(self, number, size, filters, hidden):
        super().__init__()
        layers, channels, stream = [], 1, 0
        for count in filters:
            layer = nn.Conv2d(channels, count, size, padding=size // 2)
            fans = size * size * channels, size * size * count
            kernel = glorot(1000 * number + stream, (size, size, channels, count), *fans)
            set_to(layer.weight, kernel.permute(3, 2, 0, 1))
            set_to(layer.bias, torch.zeros(count))
            layers += [layer, nn.ReLU(), nn.MaxPool2d(2)]
            channels, stream = count, stream + 2
        self.convolutions = nn.Sequential(*layers)
        lens = [49 * channels, *hidden, 10]
        self.dense = Perceptron(number, lens)
        for at, layer in enumerate(self.dense.layers[::2]):
            n, m = layer.in_features, layer.out_features
            set_to(layer.weight, glorot(1000 * number + stream + 2 * at, (n, m), n, m).T)

    def forward(self, x):
        y = self.convolutions(x.view(-1, 1, 28, 28))
        return self.dense(y.permute(0, 2, 3, 1).reshape(len(x), -1))


class Language(nn.Module):
    """Embedding, LSTM, projection, and the embedding's table once more."""

    def __init__(self, number):
        super().__init__()
        base = 1000 * number
        self.table = nn.Embedding(VOCABULARY, 96)
        set_to(self.table.weight, glorot(base, (VOCABULARY, 96), VOCABULARY, 96))
        self.lstm = nn.LSTM(96, 256, batch_first=True)
        # Both have the gates in the order i, f, g, o; PyTorch's kernels are transposed, and it has two biases.
        set_to(self.lstm.weight_hh_l0, glorot(base + 2, (256, 1024), 256, 1024).T)
        set_to(self.lstm.weight_ih_l0, glorot(base + 1, (96, 1024), 96, 1024).T)
        set_to(self.lstm.bias_ih_l0, torch.zeros(1024))
        set_to(self.lstm.bias_hh_l0, torch.zeros(1024))
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.project = nn.Linear(256, 96)
        set_to(self.project.weight, glorot(base + 4, (256, 96), 256, 96).T)
        set_to(self.project.bias, torch.zeros(96))
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, x):
        y = self.project(self.lstm(self.table(x))[0])
        return (y @ self.table.weight.T + self.bias).reshape(-1, VOCABULARY)


def set_to(parameter, value):
    with torch.no_grad():
        parameter.copy_(value)


WORKLOADS = {
    "logreg": (1, 64, 0.005, lambda: Perceptron(1, [784, 10])),
    "mlp": (2, 64, 0.02, lambda: Perceptron(2, [784, 128, 64, 10])),
    "2nn": (3, 64, 0.02, lambda: Perceptron(3, [784, 200, 200, 10])),
    "scnn": (4, 32, 0.02, lambda: Convolutions(4, 3, [8, 16], [])),
    "cnn": (5, 32, 0.02, lambda: Convolutions(5, 5, [32, 64], [512])),
    "lstm": (6, 16, 5.0, lambda: Language(6)),
}


def batches(name, number, batch):
    count, sx, sy = batch * BATCHES, 1000 * number + 900, 1000 * number + 901
    if name == "lstm":
        tokens = (words(sx, count * (TIME + 1)) % VOCABULARY).astype(np.int64).reshape(count, TIME + 1)
        x, y = torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(tokens[:, 1:].copy())
        return [(a, b.reshape(-1)) for a, b in zip(x.split(batch), y.split(batch))]
    x = (words(sx, count * 784).astype(np.float64) / 2**32).astype(np.float32).reshape(count, 784)
    y = (words(sy, count) % 10).astype(np.int64)
    return list(zip(torch.from_numpy(x).split(batch), torch.from_numpy(y).split(batch)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    golden = json.loads((pathlib.Path(__file__).parent / "../vectors/v1/losses.json").read_text())["losses"]
    print(f"torch {torch.__version__}, {given.threads} thread(s); workload, batch, ms per step (median), least, first step, loss error")
    for name in given.only.split(","):
        number, batch, rate, make = WORKLOADS[name]
        batch = given.batch or batch
        data = batches(name, number, batch)
        model, loss_of = make(), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)

        def step(at):
            x, y = data[at % BATCHES]
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        start = time.perf_counter()
        losses = [step(0).item()]
        first = 1e3 * (time.perf_counter() - start)
        losses += [step(at).item() for at in range(1, GOLDEN_STEPS)]
        times, at, end = [], GOLDEN_STEPS, time.perf_counter() + given.seconds
        while time.perf_counter() < end or len(times) < 8:
            start = time.perf_counter()
            for _ in range(4):
                step(at)
                at += 1
            times.append(1e3 * (time.perf_counter() - start) / 4)
        error = "-"
        if given.batch is None:
            expected = golden[name]["sgd"]
            error = f"{max(abs(a - b) / abs(b) for a, b in zip(losses, expected)):.1e}"
        print(f"{name:8} {batch:4} {statistics.median(times):9.3f} {min(times):9.3f} {first:9.1f}  {error}", flush=True)


if __name__ == "__main__":
    main()
