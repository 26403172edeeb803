"""How long training stands still when a process of a cluster is killed.

    python failover.py [--kinds worker,oldest_worker,coordinator,oldest,cassandra,all] [--rounds N] [--runs N]
                       [--config FILE] [--append FILE]

Starts `bios cluster` with two coordinators and two workers, lets several runs train small steps one after another, kills
one process with `kill -9`, and measures for each run the time from the kill to its first new result. Runs that lived
elsewhere show what else the kill costs; the longest time is the time of failover. Prints a table and one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "test" / "python"))

from cluster import Cluster, cluster  # noqa: E402
from harness import NAME, batch  # noqa: E402
from bios import types  # noqa: E402

QUIET_SECONDS = 5.0


class Trainer:
    """A run that trains small steps, one after another, and remembers when each was done."""

    def __init__(self, service: Any, seed: int) -> None:
        self.run = service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)
        self.times: List[float] = []
        self.stopped = False
        self.failure: List[BaseException] = []
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            while not self.stopped:
                self.run.forward_backward(batch(1, sequences=1, longest=8), "cross_entropy")
                self.run.optim_step(types.AdamParams(learning_rate=1e-4)).result(timeout=300)
                self.times.append(time.monotonic())
        except BaseException as e:
            self.failure.append(e)

    def still(self, since: float) -> float:
        """Seconds from `since` to the first result that began after it: the second result behind it."""
        after = [t for t in self.times if t > since]
        return after[1] - since if len(after) > 1 else -1.0

    def longest(self, since: float) -> float:
        """The longest time without a result since then."""
        times = [since] + [t for t in self.times if t > since]
        return max(b - a for a, b in zip(times, times[1:]))


def victims(running: Cluster, kind: str, turn: int) -> List[str]:
    if kind == "all":
        return list(running.nodes())
    if kind == "cassandra":
        return ["cassandra"]
    role = "worker" if "worker" in kind else "coordinator"
    names = running.names(role)
    return [names[0] if kind.startswith("oldest") else names[1 + turn % (len(names) - 1)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="worker,oldest_worker,coordinator,oldest,cassandra,all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--config", default="")
    parser.add_argument("--append", default="")
    arguments = parser.parse_args()
    rows: List[Dict[str, Any]] = []
    for kind in arguments.kinds.split(","):
        for turn in range(arguments.rounds):
            # A new cluster each time: its first coordinator is the oldest node, its first worker holds the shards' coordinator.
            with cluster(arguments=["--config", arguments.config] if arguments.config else []) as running:
                service = running.client()
                trainers = [Trainer(service, seed) for seed in range(arguments.runs)]
                for trainer in trainers:
                    trainer.thread.start()
                time.sleep(QUIET_SECONDS)
                names = victims(running, kind, turn)
                killed = time.monotonic()
                for name in names:
                    running.signal(name, signal.SIGKILL)
                limit = killed + 120
                while any(t.still(killed) < 0 for t in trainers) and time.monotonic() < limit:
                    time.sleep(0.05)
                time.sleep(3 * QUIET_SECONDS)
                for trainer in trainers:
                    trainer.stopped = True
                for trainer in trainers:
                    trainer.thread.join(120)
                    if trainer.failure:
                        raise trainer.failure[0]
                gaps = sorted(round(t.longest(killed), 2) for t in trainers)
                row = {"bench": "failover", "killed": kind, "config": Path(arguments.config).name or "default", "runs": len(trainers),
                       "gaps_s": gaps, "failover_s": gaps[-1], "date": time.strftime("%Y-%m-%d")}
                rows.append(row)
                print(json.dumps(row), flush=True)
                if arguments.append:
                    with open(arguments.append, "a") as out:
                        out.write(json.dumps(row) + "\n")
    print(f"\n{'killed':<16} {'longest stop, s':>16}   all runs, s")
    for row in rows:
        print(f"{row['killed']:<16} {row['failover_s']:>16.2f}   {' '.join(str(g) for g in row['gaps_s'])}")


if __name__ == "__main__":
    main()
