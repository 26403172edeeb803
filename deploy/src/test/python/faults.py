"""Runs on a cluster with faults give the same bits as runs without faults.

    python faults.py [--seed N] [--faults N] [--runs N] [--steps N] [--kinds KIND,...] [--sabotage lose|repeat]

Several runs train at once on a real cluster (`bios cluster`: coordinators, workers, Cassandra), each a program of
pipelined steps with saves, loads, forward passes and samples. First undisturbed; then the same programs again while
faults happen at moments that the seed fixes: `kill -9` of a worker, a coordinator, Cassandra, or everything; SIGSTOP of a
worker or a coordinator for longer than it takes to be declared dead; SIGTERM; a worker cut off from the network (needs
root and `ip`; the check then runs in a network namespace of its own). Every result that the clients saw, the final
adapters, a few steps more (which would show another optimizer state) and the counts of steps must be equal to the last
bit. `--sabotage` loses or repeats one step of one run on purpose: the check must then fail, which shows that it can.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Set, Tuple

from cluster import Cluster, cluster
from harness import NAME, adapter, batch, holds, same
from random_kills import program
from bios import types

RESULT_SECONDS = 600
NAMESPACE = "BIOS_FAULTS_NAMESPACE"


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Faults:
    """Injects faults at points that the seed fixes: after certain numbers of results of all programs."""

    def __init__(self, running: Cluster, kinds: List[str], count: int, results: int, seed: int) -> None:
        self._running = running
        self._chance = random.Random(seed + 1)
        moments = sorted(self._chance.randrange(results) for _ in range(count))
        self._plan = [(moment, kinds[i % len(kinds)]) for i, moment in enumerate(moments)]
        order = [kind for _, kind in self._plan]
        self._chance.shuffle(order)
        self._plan = [(moment, kind) for (moment, _), kind in zip(self._plan, order)]
        self._killed: Set[int] = set()
        self._reached = 0
        self._moved = threading.Condition()
        self.done: List[str] = []
        self.failure: List[BaseException] = []
        self.thread = threading.Thread(target=self._work, daemon=True)

    def reached(self) -> None:
        """Counts a result."""
        with self._moved:
            self._reached += 1
            self._moved.notify_all()

    def finish(self, began: float) -> None:
        """Waits for the last fault; ends the check unless all of them happened.

        `began`: the monotonic time at which the programs were started."""
        self.thread.join(300)
        if self.failure:
            raise self.failure[0]
        log(f"with faults: {time.monotonic() - began:.1f} s")
        holds(f"{len(self.done)} faults happened: {', '.join(self.done)}", len(self.done) == len(self._plan))

    def _work(self) -> None:
        try:
            for moment, kind in self._plan:
                with self._moved:
                    self._moved.wait_for(lambda: self._reached >= moment)
                time.sleep(self._chance.random() * 0.3)
                getattr(self, kind)()
                self.done.append(kind)
        except BaseException as e:  # a fault that cannot be done ends the check
            self.failure.append(e)

    def _victim(self, role: str) -> Tuple[str, int]:
        """A running process of the role that was not killed before; waits for one.

        A killed process keeps its number in the cluster's list of nodes until the next one is started."""
        while True:
            pids = {name: self._running.pid(name) for name in self._running.names(role)}
            names = [name for name, pid in pids.items() if pid and pid not in self._killed]
            if names:
                name = self._chance.choice(names)
                return name, pids[name]
            time.sleep(0.2)

    def _hit(self, role: str, number: int, what: str) -> Tuple[str, int]:
        name, pid = self._victim(role)
        log(f"  {what} {name} (pid {pid})")
        if number != signal.SIGSTOP:
            self._killed.add(pid)
        self._running.signal(name, number)
        return name, pid

    def kill_worker(self) -> None:
        self._hit("worker", signal.SIGKILL, "kill -9")

    def kill_coordinator(self) -> None:
        self._hit("coordinator", signal.SIGKILL, "kill -9")

    def kill_cassandra(self) -> None:
        self._hit("cassandra", signal.SIGKILL, "kill -9")

    def kill_all(self) -> None:
        log("  kill -9 everything")
        for name in self._running.nodes():
            self._killed.add(self._running.pid(name))
            self._running.signal(name, signal.SIGKILL)

    def term_worker(self) -> None:
        self._hit("worker", signal.SIGTERM, "SIGTERM")

    def term_coordinator(self) -> None:
        self._hit("coordinator", signal.SIGTERM, "SIGTERM")

    def _freeze(self, role: str, seconds: float) -> None:
        name, pid = self._hit(role, signal.SIGSTOP, f"SIGSTOP for {seconds:.0f} s")
        time.sleep(seconds)
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
        log(f"  SIGCONT {name}")

    def stop_worker(self) -> None:
        self._freeze("worker", self._chance.choice((2.0, 15.0, 30.0)))

    def stop_coordinator(self) -> None:
        self._freeze("coordinator", self._chance.choice((2.0, 15.0)))

    def cut_worker(self) -> None:
        name, _ = self._victim("worker")
        host = self._running.nodes()[name]["host"]
        seconds = self._chance.choice((3.0, 20.0))
        log(f"  cut off {name} for {seconds:.0f} s")
        route = ["blackhole", f"{host}/32", "table", "local"]
        subprocess.run(["ip", "route", "add", *route], check=True)
        time.sleep(seconds)
        subprocess.run(["ip", "route", "del", *route], check=True)
        log(f"  {name} is back")


class Sabotaged:
    """A run that silently loses or repeats one optimizer step, to show that the comparison can fail."""

    def __init__(self, run: Any, how: str, step: int) -> None:
        self._run, self._how, self._step, self._count = run, how, step, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def optim_step(self, settings: Any) -> Any:
        self._count += 1
        if self._count - 1 != self._step:
            return self._run.optim_step(settings)
        if self._how == "lose":
            return self._run.optim_step(types.AdamParams(learning_rate=0.0))
        step = self._run.optim_step(settings)
        self._run.forward_backward(batch(7), "cross_entropy")
        self._run.optim_step(settings)
        return step



def epilogue(service: Any, run: Any, seed: int) -> Dict[str, Any]:
    """The final state of a run: adapter, number of steps, and the results of a few more steps."""
    end = adapter(service, run, "end")
    more = []
    for step in range(3):
        future = run.forward_backward(batch(seed * 77 + step), "cross_entropy")
        run.optim_step(types.AdamParams(learning_rate=1e-3))
        result = future.result(timeout=RESULT_SECONDS)
        more.append((result.metrics, [list(o["logprobs"].tolist()) for o in result.loss_fn_outputs]))
    saved = run.save_state("later").result(timeout=RESULT_SECONDS)
    return {"adapter": end, "steps behind it": more, "adapter behind them": adapter(service, run, "later.too"),
            "count of steps": saved.step}


def go(service: Any, seed: int, steps: int, reached: Callable[[], None], sabotage: Tuple[str, int]) -> Tuple[Any, List[Any]]:
    """Executes one program: the run and all results."""
    run = service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)
    calls = program(Sabotaged(run, *sabotage) if sabotage[0] else run, steps, seed)
    results = []
    for name, read, future in calls:
        results.append((name, read(future.result(timeout=RESULT_SECONDS))))
        reached()
    return run, results


def together(service: Any, seeds: List[int], steps: int, reached: Callable[[], None], sabotage: str = "") -> List[Tuple[Any, List[Any]]]:
    """Executes all programs concurrently."""
    out: Dict[int, Any] = {}

    def one(seed: int) -> None:
        try:
            out[seed] = go(service, seed, steps, reached, (sabotage if seed == seeds[0] else "", steps // 2))
        except BaseException as e:
            out[seed] = e

    threads = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in seeds:
        if isinstance(out[seed], BaseException):
            raise out[seed]
    return [out[seed] for seed in seeds]


def can_cut() -> bool:
    """Whether the network can be partitioned here: in a namespace, as root."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    test = "ip link set lo up && ip route add blackhole 127.0.0.9/32 table local"
    return subprocess.run(["unshare", "-n", "sh", "-c", test], stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--coordinators", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", default="kill_worker,kill_coordinator,kill_cassandra,stop_worker,term_worker,"
                                           "stop_coordinator,term_coordinator,kill_all,cut_worker")
    parser.add_argument("--sabotage", choices=("", "lose", "repeat"), default="")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if "cut_worker" in kinds and NAMESPACE not in os.environ:
        if can_cut():
            os.environ[NAMESPACE] = "1"
            os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$@"', sys.executable, *sys.argv])
        log("the network cannot be cut off here (no root, or no ip): that fault is left out")
        kinds.remove("cut_worker")
    seeds = [arguments.seed * 100 + i for i in range(arguments.runs)]
    with cluster(coordinators=arguments.coordinators, workers=arguments.workers, arguments=["--spread"]) as running:
        service = running.client()
        log("undisturbed ...")
        began = time.monotonic()
        quiet = together(service, seeds, arguments.steps, lambda: None)
        wanted = [epilogue(service, run, seed) for (run, _), seed in zip(quiet, seeds)]
        log(f"undisturbed: {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        faults = Faults(running, kinds, arguments.faults, sum(len(results) for _, results in quiet), arguments.seed)
        faults.thread.start()
        broken = together(running.client(), seeds, arguments.steps, faults.reached, arguments.sabotage)
        faults.finish(began)
        for seed, (_, one), (_, other) in zip(seeds, broken, quiet):
            for a, b in zip(one, other):
                if a != b:
                    same(f"run {seed}: result of {a[0]}", a, b)
            same(f"run {seed}: all {len(one)} results", len(one), len(other))
        for seed, (run, _), before in zip(seeds, broken, wanted):
            after = epilogue(service, run, seed)
            for what, value in before.items():
                same(f"run {seed}: {what}", after[what], value)


if __name__ == "__main__":
    main()
