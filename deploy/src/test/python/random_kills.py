"""A run whose server is killed at random times gives the same bits as a run without faults.

    python random_kills.py [--seed N] [--kills N] [--steps N] [--starting SHARE]

The same program runs twice: pipelined steps with saves, loads of its own checkpoints, forward passes and sampling in
between. The second time the server is killed with `kill -9` at moments that the seed fixes, some of them while it starts
or while the run recovers (`--starting`: the share of kills that another one follows at once). Every result and the final
adapter must be equal to the last bit, no operation may be set aside or fail, and three more kills while the finished run
recovers must change nothing.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from typing import Any, Callable, List, Tuple

from harness import NAME, Server, adapter, batch, holds, same, server
from bios import types

PROMPT = types.ModelInput.from_ints([5, 17, 900, 3, 41])
Call = Tuple[str, Callable[[Any], Any], Any]


def trained(result: Any) -> object:
    return result.metrics, [list(output["logprobs"].tolist()) for output in result.loss_fn_outputs]


def drawn(result: Any) -> object:
    return [(list(sequence.tokens), list(sequence.logprobs), str(sequence.stop_reason)) for sequence in result.sequences]


def saved(result: Any) -> object:
    return result.path.rsplit("/", 1)[1]


def program(run: Any, steps: int, seed: int) -> List[Call]:
    """Submits the whole program without waiting for any result; the same for the same seed."""
    chance = random.Random(seed)
    calls: List[Call] = []
    names: List[str] = []
    for step in range(steps):
        for part in range(chance.choice((1, 1, 2))):
            calls.append((f"pass {step}.{part}", trained, run.forward_backward(
                batch(seed * 1000 + 2 * step + part, sequences=chance.randint(4, 24), longest=96), "cross_entropy")))
        settings = types.AdamParams(learning_rate=chance.choice((1e-3, 3e-4)), grad_clip_norm=chance.choice((0.0, 1.0)))
        calls.append((f"step {step}", lambda result: result.metrics, run.optim_step(settings)))
        what = chance.random()
        if what < 0.2:
            names.append(f"at.{step % 3}")
            calls.append((f"save {step}", saved, run.save_state(names[-1], metadata={"step": step})))
        elif what < 0.3:
            calls.append((f"weights {step}", saved, run.save_weights_for_sampler(f"at.{step % 2}")))
        elif what < 0.4 and names:
            calls.append((f"load {step}", lambda result: result.step, run.load_state(f"bios://{run.model_id}/{chance.choice(names)}")))
        elif what < 0.5:
            calls.append((f"forward {step}", trained, run.forward(batch(seed + step), "cross_entropy")))
        elif what < 0.6:
            calls.append((f"sample {step}", drawn, run.sample(PROMPT, types.SamplingParams(max_tokens=40, seed=step, temperature=1.0), 2)))
    return calls


class Killer:
    """Kills the server when the program has come to moments that the seed fixes, and starts it again."""

    def __init__(self, running: Server, kills: int, calls: int, seed: int, starting: float) -> None:
        self._running = running
        self._starting = starting
        self._chance = random.Random(seed + 1)
        self._moments = sorted(self._chance.randrange(calls) for _ in range(kills))
        self._reached = -1
        self._moved = threading.Condition()
        self.kills = 0
        self.thread = threading.Thread(target=self._work, daemon=True)

    def reached(self, call: int) -> None:
        """The result of this call has come."""
        with self._moved:
            self._reached = call
            self._moved.notify_all()

    def _work(self) -> None:
        while self._moments:
            with self._moved:
                self._moved.wait_for(lambda: self._reached >= self._moments[0])
            self._moments.pop(0)
            time.sleep(self._chance.random() * 0.2)
            self._running.kill()
            self.kills += 1
            while self._moments and self._chance.random() < self._starting:
                self._moments.pop(0)
                self._running.launch()
                time.sleep(self._chance.random() * 6)
                self._running.kill()
                self.kills += 1
            self._running.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--starting", type=float, default=0.3)
    arguments = parser.parse_args()
    with server() as running:
        service = running.client()

        def fresh() -> Any:
            return service.create_lora_training_client(base_model=NAME, rank=8, seed=arguments.seed)

        quiet = fresh()
        undisturbed = [(name, read(future.result())) for name, read, future in program(quiet, arguments.steps, arguments.seed)]
        wanted = adapter(service, quiet, "end")

        run = fresh()
        calls = program(run, arguments.steps, arguments.seed)
        killer = Killer(running, arguments.kills, len(calls), arguments.seed, arguments.starting)
        killer.thread.start()
        disturbed = []
        for index, (name, read, future) in enumerate(calls):
            killer.reached(index)
            disturbed.append((name, read(future.result(timeout=300))))
        killer.thread.join(600)
        holds(f"the server was killed {killer.kills} times", killer.kills == arguments.kills)
        for one, other in zip(disturbed, undisturbed):
            if one != other:
                same(f"result of {one[0]}", one, other)
        print(f"✓ all {len(calls)} results", flush=True)
        same("the adapter", adapter(service, run, "end"), wanted)
        chance = random.Random(arguments.seed + 2)
        for _ in range(3):
            running.kill()
            running.launch()
            time.sleep(1 + chance.random() * 4)
        running.kill()
        running.start()
        kinds = {entry.kind for entry in service.create_rest_client().get_training_run_history(run.model_id, 1000).result().history}
        holds(f"no operation was blamed: {sorted(kinds)}", not kinds & {"set_aside", "operation_failed", "poisoned_operation"})
        again = [read(future.result()) for _, read, future in calls]
        same("the results, asked for again", again, [result for _, result in undisturbed])


if __name__ == "__main__":
    main()
