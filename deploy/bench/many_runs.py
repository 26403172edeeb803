"""Many runs that live on one server at the same time: its memory, and how long a run takes to come back.

Prints one JSON line. ``bios bench runs`` starts a server with little memory and runs this against it. Runs of one seed do
the same, so whatever a run answers when it comes back must be, to the last bit, what another of its seed answered before
any of them had left.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "protocol" / "python" / "src"))

import bios  # noqa: E402
from bios import types  # noqa: E402

SEEDS = 10
CLIENTS = 4


def percentile(values: List[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed."""
    ascending = sorted(values)
    return round(ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)], 2)


class Memory:
    """The resident memory of a process, looked at every second."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.seen: List[int] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> int:
        """Resident MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        raise SystemExit("the server is gone")

    def _watch(self) -> None:
        while True:
            try:
                self.seen.append(self.now())
            except (OSError, SystemExit):
                return
            time.sleep(1)


def main() -> int:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the server")
    parser.add_argument("--pid", type=int, required=True, help="its process")
    parser.add_argument("--model", default="bios/tiny", help="the base model's name")
    parser.add_argument("--rank", type=int, default=8, help="rank of the adapters")
    parser.add_argument("--runs", type=int, default=2000, help="runs")
    parser.add_argument("--visits", type=int, default=500, help="runs looked at again")
    a = parser.parse_args()

    memory = Memory(a.pid)
    service = bios.ServiceClient(base_url=a.url)
    tokens = list(range(1, 18))
    batch = [types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": tokens[1:]})]
    adam = types.AdamParams(learning_rate=1e-2)

    def answer(client: object) -> object:
        result = client.forward(batch, "cross_entropy").result()  # type: ignore[attr-defined]
        return [result.metrics["loss:sum"], [o["logprobs"].tolist() for o in result.loss_fn_outputs]]

    def new(number: int) -> object:
        client = service.create_lora_training_client(base_model=a.model, rank=a.rank, seed=number % SEEDS)
        gradient = client.forward_backward(batch, "cross_entropy")
        client.optim_step(adam).result()
        gradient.result()
        return client

    reached: Dict[str, int] = {"started": memory.now()}
    # the first of each seed answers before there are others
    first = [new(i) for i in range(SEEDS)]
    expected = [answer(client) for client in first]
    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = first + list(pool.map(new, range(SEEDS, a.runs)))
    made = time.perf_counter() - begin
    reached["all runs made"] = memory.now()

    chance = random.Random(1)
    order = chance.sample(range(a.runs), min(a.visits, a.runs))
    back, stay, wrong = [], [], 0
    for number in order:
        for times in (back, stay):
            begin = time.perf_counter()
            wrong += answer(clients[number]) != expected[number % SEEDS]
            times.append((time.perf_counter() - begin) * 1e3)
    reached["visited"] = memory.now()
    time.sleep(70)
    reached["a minute later"] = memory.now()

    # all at once: every run does another step
    begin = time.perf_counter()
    steps = []
    for client in clients:
        client.forward_backward(batch, "cross_entropy")  # type: ignore[attr-defined]
        steps.append(client.optim_step(adam))  # type: ignore[attr-defined]
    for step in steps:
        step.result()
    together = time.perf_counter() - begin
    reached["a step of all at once"] = memory.now()
    after = [answer(client) for client in first]
    wrong += sum(answer(clients[number]) != after[number % SEEDS] for number in order[:50])

    every = max(1, len(memory.seen) // 40)
    print(json.dumps({
        "runs": a.runs, "visits": len(order), "wrong": wrong, "make_s": round(made, 1),
        "return_p50_ms": percentile(back, 50), "return_p90_ms": percentile(back, 90), "return_p99_ms": percentile(back, 99),
        "stay_p50_ms": percentile(stay, 50), "stay_p99_ms": percentile(stay, 99), "all_step_s": round(together, 1),
        "peak_rss_mb": max(memory.seen), "rss_mb": reached, "rss_over_time_mb": memory.seen[::every]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
