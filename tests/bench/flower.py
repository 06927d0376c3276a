"""Updates that Flower's FedAvg aggregates per second, and beside it, in the same run, those that our relay takes.

    python3 -m venv target/flower && target/flower/bin/pip install flwr==1.42.0
    cargo build --release -p unsaid-relay --example throughput
    target/flower/bin/python tests/bench/flower.py [--coordinates 199998] [--clients 8] [--rounds 30] \\
        [--relay target/release/examples/throughput [--updates 1000]]

Three figures, for vectors of float32 and the same cohort:
- the aggregation function alone, over results that are there, serialised, as Flower hands them to it;
- Flower's server loop, with clients in the same process that return their vector at once: it hands out the model, collects the results
  on its pool of threads, and aggregates;
- the same loop over Flower's gRPC transport on loopback, with each client a process. The server is on core 0, the clients on the others.
  (`start_server` is deprecated in favour of SuperLink, which was not measured.)
With `--relay`, that program runs last: its relay, too, is on core 0 and its senders, over as many connections as there are clients, on the
others; every update is committed to the disk before it is acknowledged, which Flower's are not.
A round is counted from the median of the later half of them: connections and imports are not what is measured.
"""

import argparse
import logging
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import time

import numpy as np
from flwr.client import NumPyClient
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.compat.client.app import start_client
from flwr.compat.server.app import start_server
from flwr.server import Server, ServerConfig, SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.strategy.aggregate import aggregate_inplace

logging.disable(logging.WARNING)


class Timed(FedAvg):
    """FedAvg that notes when each round begins and ends."""

    def __init__(self, clients, vector):
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=ndarrays_to_parameters([np.zeros_like(vector)]),
        )
        self.took = []

    def configure_fit(self, *args, **kwargs):
        self.begun = time.perf_counter()
        return super().configure_fit(*args, **kwargs)

    def aggregate_fit(self, server_round, results, failures):
        assert not failures, failures
        made = super().aggregate_fit(server_round, results, failures)
        self.took.append(time.perf_counter() - self.begun)
        return made

    def per_second(self, clients):
        return clients / statistics.median(self.took[len(self.took) // 2 :])


class InProcess(ClientProxy):
    """A client whose vector is there."""

    def __init__(self, cid, vector):
        super().__init__(cid)
        self.result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), 600, {})

    def fit(self, ins, timeout, group_id):
        return self.result

    def get_properties(self, *_):
        raise NotImplementedError

    get_parameters = evaluate = reconnect = get_properties


class OverTheNetwork(NumPyClient):
    def __init__(self, vector):
        self.vector = vector

    def fit(self, parameters, config):
        return [self.vector], 600, {}


def function(vector, clients, rounds):
    results = [(None, InProcess(str(at), vector).result) for at in range(clients)]
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        mean = aggregate_inplace(results)[0]
        took.append(time.perf_counter() - begun)
    assert np.allclose(mean, vector, rtol=1e-5)
    return clients / statistics.median(took)


def loop(vector, clients, rounds):
    manager, strategy = SimpleClientManager(), Timed(clients, vector)
    for at in range(clients):
        manager.register(InProcess(str(at), vector))
    Server(client_manager=manager, strategy=strategy).fit(rounds, None)
    return strategy.per_second(clients)


def leave_core_0():
    os.sched_setaffinity(0, set(range(os.cpu_count())) - {0} or {0})


def client(address, coordinates):
    leave_core_0()
    start_client(server_address=address, client=OverTheNetwork(vector_of(coordinates)).to_client(), insecure=True)


def network(vector, clients, rounds):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=client, args=(address, vector.size)) for _ in range(clients)]
    for process in others:
        process.start()
    os.sched_setaffinity(0, {0})
    strategy = Timed(clients, vector)
    start_server(server_address=address, strategy=strategy, config=ServerConfig(num_rounds=rounds))
    for process in others:
        process.join()
    return strategy.per_second(clients)


def relay(program, updates, clients):
    arguments = [program, str(updates), str(clients)]
    said = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=leave_core_0).stdout
    print(said, end="")
    return float(re.search(r"relay, durable +([\d.]+)", said)[1])


def vector_of(coordinates):
    return np.random.default_rng(1).standard_normal(coordinates).astype(np.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinates", type=int, default=199_998)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--relay", help="the program `throughput`, built for release")
    parser.add_argument("--updates", type=int, default=1_000, help="that the relay is sent in a turn")
    given = parser.parse_args()
    vector = vector_of(given.coordinates)
    print(f"{given.clients} clients with {given.coordinates} coordinates, median of the later of {given.rounds} rounds")
    for name, measure in [("aggregation function", function), ("server loop, in process", loop), ("over gRPC", network)]:
        rate = measure(vector, given.clients, given.rounds)
        print(f"{name:24} {rate:9.1f} updates/s", flush=True)
    if given.relay:
        ours = relay(given.relay, given.updates, given.clients)
        print(f"the relay takes {ours / rate:.1f} times as many as Flower over gRPC")


if __name__ == "__main__":
    main()
