"""An operation that crashes its worker each time is failed automatically, without effect on other operations.

    python poison.py [--seed N]

On a cluster with two workers one run submits a batch that takes several seconds. Whichever worker executes it (the run's
history tells) is ended with `kill -9` meanwhile, again after each failover, as if the batch itself did it, until the
service gives the operation up: it must fail with `worker_lost` and say how often its worker died; what was submitted behind
it fails with it until the client has seen the error; then the run trains on as if that operation had never been. Another
run, which trains all the while on the same workers, must notice nothing: no call fails, no bit differs from an undisturbed
run. Takes minutes: run by hand.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from typing import Any, List, Optional

from cluster import Cluster, cluster
from faults import log
from harness import NAME, adapter, batch, bios, holds, results, same, train
from random_kills import trained
from rolling import PATIENCE_SECONDS, Trained

WARM_STEPS, STRUCK_STEPS, LATER_STEPS = 4, 3, 6
LEAST_SECONDS = 3.0
MOST_DEATHS = 10
EXECUTES_AFTER_SECONDS = 1.5
OPERATION_SECONDS = 1.0


def deadly(seed: int, sequences: int) -> List[Any]:
    """A batch that takes several seconds and is one operation."""
    return batch(seed * 31 + 5, sequences=sequences, longest=1000)


def failure(future: Any) -> Optional["bios.RequestFailedError"]:
    """The error of an operation; None if it was executed."""
    try:
        future.result(timeout=PATIENCE_SECONDS)
        return None
    except bios.RequestFailedError as e:
        return e


class Poison:
    """Kills the worker whenever it executes a certain operation."""

    def __init__(self, running: Cluster, rest: Any, run: str, number: int) -> None:
        self._running, self._rest, self._run, self._number = running, rest, run, number
        self.deaths: List[str] = []
        self.over = threading.Event()
        self.failure: List[BaseException] = []
        self.thread = threading.Thread(target=self._work, daemon=True)

    def history(self) -> List[Any]:
        """The history of the run, the newest entry last."""
        return self._rest.get_training_run_history(self._run).result().history

    def _work(self) -> None:
        try:
            since = None
            while not self.over.is_set() and len(self.deaths) < MOST_DEATHS:
                node, since = self._executing(since)
                if node is None:
                    return
                if self._running.signal(node, signal.SIGKILL):
                    self.deaths.append(node)
                    log(f"  death {len(self.deaths)}: kill -9 {node}")
        except BaseException as e:  # told at the end
            self.failure.append(e)

    def _executing(self, since: Any) -> Any:
        """Waits until the operation is executed: the worker, and the time of the note that told it."""
        while not self.over.is_set():
            notes = [n for n in self.history() if since is None or n.time > since]
            opened = [n for n in notes if n.kind == "opened"]
            tried = [n for n in notes if n.kind == "attempt" and n.seq_id == self._number]
            # Behind the second death operations are tried one at a time, and the history says which.
            if len(self.deaths) < 2 and opened:
                self.over.wait(EXECUTES_AFTER_SECONDS)
                return opened[-1].node, opened[-1].time
            if tried:
                self.over.wait(OPERATION_SECONDS)
                return tried[-1].node, tried[-1].time
            time.sleep(0.1)
        return None, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=180, help="of the deadly batch")
    arguments = parser.parse_args()
    seed = arguments.seed
    with cluster(coordinators=1, workers=2) as running:
        service = running.client()
        rest = service.create_rest_client()

        def fresh() -> Any:
            return service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)

        quiet = fresh()
        wanted = results(train(quiet, range(WARM_STEPS), seed) + train(quiet, range(50, 50 + LATER_STEPS), seed))
        wanted_adapter = adapter(service, quiet, "end")
        began = time.monotonic()
        trained(fresh().forward_backward(deadly(seed, arguments.sequences), "cross_entropy").result())
        seconds = time.monotonic() - began
        holds(f"undisturbed, the batch takes {seconds:.1f} s", seconds >= LEAST_SECONDS)

        enough = threading.Event()
        other = Trained(service, seed + 100, lambda _: not enough.is_set())
        run = fresh()
        got = results(train(run, range(WARM_STEPS), seed))
        future = run.forward_backward(deadly(seed, arguments.sequences), "cross_entropy")
        poison = Poison(running, rest, run.model_id, int(future.request_id.rsplit(":", 1)[1]))
        poison.thread.start()
        behind = train(run, range(20, 20 + STRUCK_STEPS), seed)
        behind.append(run.optim_step(bios.types.AdamParams(learning_rate=1e-3)))
        why = failure(future)
        poison.over.set()
        poison.thread.join()
        enough.set()
        if poison.failure:
            raise poison.failure[0]
        holds(f"the operation was given up: {why}", why is not None and why.code == "worker_lost" and "died" in why.message)
        log(f"  its workers died {len(poison.deaths)} times: {', '.join(poison.deaths)}")
        struck = [failure(one) for one in behind]
        holds(f"the {len(struck)} behind it failed with it, by the same cause",
              all(one is not None and one.code == "worker_lost" for one in struck))
        got += results(train(run, range(50, 50 + LATER_STEPS), seed))
        same("the run trains on as if that operation had never been", got, wanted)
        same("its adapter", adapter(service, run, "end"), wanted_adapter)
        notes = poison.history()
        kinds = [note.kind for note in notes]
        holds(f"its history tells it: {kinds}", kinds.count("poisoned_operation") == 1 and "operation_failed" not in kinds)
        other.join()
        again = Trained(service, seed + 100, lambda done: done < other.chunks).join()
        same(f"all {len(other.results)} results of the other run", other.results, again.results)
        same("its adapter", adapter(service, other.run, "end"), adapter(service, again.run, "end"))
        kinds = [n.kind for n in rest.get_training_run_history(other.run.model_id).result().history]
        holds("none of its operations failed", "poisoned_operation" not in kinds and "operation_failed" not in kinds)


if __name__ == "__main__":
    main()
