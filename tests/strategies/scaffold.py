"""SCAFFOLD with both of its vectors, computed apart from the relay and its clients, in fractions.

    python3 tests/strategies/scaffold.py > tests/vectors/v1/control-variates.json

Algorithm 1 of Karimireddy et al. 2020 (arXiv:1910.06378) with option II, written down as it stands there: every client of a round
sends its change of the model AND that of its control variate, and the server adds both up. Four clients with losses
f_i(x) = sum_j a_ij (x_j - b_ij)^2 / 2 take two steps each. What a client sends of its change is halved until its norm is at most CLIP,
and then rounded to the grid; y_i is the model and what was sent. All numbers have few binary digits: they are exact as 32-bit floats,
which is checked here.
"""

import json
import struct
from fractions import Fraction as F

STEPS, RATE, GRID, CLIP = 2, F(1, 4), F(1, 1024), F(1)
A = [[F(1), F(1, 2)], [F(1, 2), F(1)], [F(1, 4), F(1)], [F(1), F(3, 4)]]
B = [[F(4), F(-1)], [F(-2), F(2)], [F(1), F(-3)], [F(-1), F(1, 2)]]
COHORTS = [[0, 1], [2, 3], [0, 2], [0, 1, 2, 3], [1, 3]]


def exact(vector):
    for value in vector:
        assert F(struct.unpack("f", struct.pack("f", float(value)))[0]) == value, value
    return [float(value) for value in vector]


def train(client, x, correction):
    y = list(x)
    for _ in range(STEPS):
        gradient = [a * (y - b) for a, b, y in zip(A[client], B[client], y)]
        y = [y - RATE * (g + c) for y, g, c in zip(y, gradient, correction)]
    return [y - x for y, x in zip(y, x)]


def coordinates(change):
    while sum(value * value for value in change) > CLIP * CLIP:
        change = [value / 2 for value in change]
    return [round(value / GRID) for value in change]


def main():
    x, c = [F(0), F(0)], [F(0), F(0)]
    own = [[F(0), F(0)] for _ in A]
    rounds = []
    for cohort in COHORTS:
        told, moves, turns = [], [], []
        for client in cohort:
            before = own[client]
            sent = coordinates(train(client, x, [c - o for c, o in zip(c, before)]))
            y = [x + k * GRID for x, k in zip(x, sent)]
            after = [o - c + (x - y) / (STEPS * RATE) for o, c, x, y in zip(before, c, x, y)]
            moves.append([y - x for x, y in zip(x, y)])
            turns.append([after - before for after, before in zip(after, before)])
            told.append(
                {"client": client, "own_before": exact(before), "coordinates": sent, "own_after": exact(after)}
            )
            own[client] = after
        next_x = [x + sum(move) / len(cohort) for x, move in zip(x, zip(*moves))]
        next_c = [c + sum(turn) / len(A) for c, turn in zip(c, zip(*turns))]
        assert next_c == [sum(of) / len(A) for of in zip(*own)]
        rounds.append(
            {
                "model": exact(x),
                "control": exact(c),
                "updates": told,
                "model_after": exact(next_x),
                "control_after": exact(next_c),
            }
        )
        x, c = next_x, next_c
    task = {"population": len(A), "steps": STEPS, "learning_rate": float(RATE), "grid_step": float(GRID)}
    print(json.dumps({**task, "rounds": rounds}, indent=1))


main()
