"""A rolling restart of a whole cluster: runs that train meanwhile notice nothing and give the bits of undisturbed ones.

    python rolling.py [--seed N] [--runs N] [--rounds N]

Runs train on a cluster of two coordinators and two workers, in chunks of pipelined steps with saves, loads, forward passes
and samples, for as long as it takes to send SIGTERM to each worker, each coordinator and Cassandra in turn, the next one
only when the one before does its part again. Then the same chunks are computed again with nothing disturbed. No call of a
client may fail, and every result and the final adapters must be equal to the last bit. Takes minutes: run by hand.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from typing import Any, Callable, List, Tuple

from cluster import Cluster, cluster
from faults import log
from harness import NAME, adapter, holds, same
from random_kills import program

RESULT_SECONDS = 600
READY_SECONDS = 180
STEPS_OF_A_CHUNK = 8


class Trained:
    """One run, trained chunk by chunk until it is told that it is enough; one chunk waits behind the one in work."""

    def __init__(self, service: Any, seed: int, more: Callable[[int], bool]) -> None:
        self.results: List[Tuple[int, str, Any]] = []
        self.chunks = 0
        self.failure: List[BaseException] = []
        self._service, self._seed, self._more = service, seed, more
        self.run: Any = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.run = self._service.create_lora_training_client(base_model=NAME, rank=8, seed=self._seed)
            submitted: List[Tuple[int, List[Any]]] = []
            while self._more(self.chunks):
                submitted.append((self.chunks, program(self.run, STEPS_OF_A_CHUNK, self._seed * 1000 + self.chunks)))
                self.chunks += 1
                if len(submitted) > 1:
                    self._read(*submitted.pop(0))
            for chunk, calls in submitted:
                self._read(chunk, calls)
        except BaseException as e:  # told when it is joined
            self.failure.append(e)

    def _read(self, chunk: int, calls: List[Any]) -> None:
        for name, read, future in calls:
            self.results.append((chunk, name, read(future.result(timeout=RESULT_SECONDS))))

    def join(self) -> "Trained":
        """Waits for its end; raises what a client's call raised."""
        self.thread.join()
        if self.failure:
            raise self.failure[0]
        return self


def restart(running: Cluster, name: str) -> None:
    """SIGTERM to one process, and waits until it does its part again."""
    began, old = time.monotonic(), running.pid(name)
    own = running.data / "logs" / f"{name}.log"
    seen = own.stat().st_size if own.exists() else 0
    answers = running.log.read_text(errors="replace").count("Cassandra is ready again")
    log(f"  SIGTERM {name} (pid {old})")
    running.signal(name, signal.SIGTERM)
    running.await_restart(name, old, READY_SECONDS)

    def ready() -> bool:
        if name == "cassandra":
            return running.log.read_text(errors="replace").count("Cassandra is ready again") > answers
        return "bios ready " in own.read_bytes()[seen:].decode(errors="replace")

    while not ready():
        if time.monotonic() > began + READY_SECONDS:
            raise SystemExit(f"✗ {name} is not ready again after {READY_SECONDS} s:\n{running.tail()}")
        time.sleep(0.1)
    log(f"  {name} is ready again after {time.monotonic() - began:.1f} s (pid {running.pid(name)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    seeds = [arguments.seed * 100 + i for i in range(arguments.runs)]
    with cluster(coordinators=2, workers=2) as running:
        rolled = threading.Event()
        disturbed = [Trained(running.client(), seed, lambda _: not rolled.is_set()) for seed in seeds]
        order = (running.names("worker") + running.names("coordinator") + running.names("cassandra")) * arguments.rounds
        try:
            for name in order:
                before = [len(one.results) for one in disturbed]
                restart(running, name)
                limit = time.monotonic() + READY_SECONDS
                while any(len(one.results) <= seen and not one.failure for one, seen in zip(disturbed, before)):
                    if time.monotonic() > limit:
                        raise SystemExit(f"✗ a run stands still after the restart of {name}")
                    time.sleep(0.1)
                log(f"  results so far: {[len(one.results) for one in disturbed]}")
        finally:
            rolled.set()
        for one in disturbed:
            one.join()
        holds(f"no call failed while {len(order)} processes restarted in turn", True)
        chunks = [one.chunks for one in disturbed]
        log(f"the same {chunks} chunks undisturbed ...")
        quiet = [Trained(running.client(), seed, lambda done, own=count: done < own) for seed, count in zip(seeds, chunks)]
        for seed, one, other in zip(seeds, disturbed, quiet):
            for a, b in zip(one.results, other.join().results):
                if a != b:
                    same(f"run {seed}: result of {a[1]} of chunk {a[0]}", a, b)
            same(f"run {seed}: all {len(one.results)} results", len(one.results), len(other.results))
            same(f"run {seed}: the adapter", adapter(running.client(), one.run, "end"),
                 adapter(running.client(), other.run, "end"))


if __name__ == "__main__":
    main()
