"""More runs than the engine has room for: they are evicted and opened again without a changed bit.

The same random operations on `--runs` runs, once with room for all and once with room for `--room` of them and little
memory for results; every loss and every adapter must be the same. A run that is not used for long answers like any other.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, List, Tuple

from harness import adapter, batch, holds, same, server
from bios import types

RANK = 4


def state_bytes() -> int:
    """What the engine counts for a run of this rank on the shipped model: 5 fp32 copies of A and B."""
    hidden, queries, keys, inner, layers = 256, 256, 128, 640, 4
    pairs = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden),
             (hidden, inner), (hidden, inner), (inner, hidden)]
    return 5 * 4 * layers * sum(RANK * (a + b) for a, b in pairs)


def settings(folder: Path, text: str) -> List[str]:
    """The option that gives a server these settings."""
    file = folder / "bios.conf"
    file.write_text(text)
    return ["--config", str(file)]


def play(arguments: List[str], runs: int, operations: int, seed: int) -> Tuple[Dict[int, List[object]], List[bytes], str]:
    """Losses of each run, adapters at the end, and what the server logged."""
    chance = random.Random(seed)
    with server(arguments=arguments) as running:
        service = running.client()
        clients = [service.create_lora_training_client(base_model="bios/tiny", rank=RANK, seed=i) for i in range(runs)]
        open_futures: List[Tuple[int, object]] = []
        for number in range(operations):
            run = chance.randrange(runs) if number >= runs else number
            kind = chance.randrange(6)
            if kind == 0:
                open_futures.append((run, clients[run].forward(batch(number, 1, 16), "cross_entropy")))
            else:
                open_futures.append((run, clients[run].forward_backward(batch(number, 2, 16), "cross_entropy")))
                if kind > 2:
                    clients[run].optim_step(types.AdamParams(learning_rate=1e-2))
            if kind == 5 and chance.randrange(3) == 0:
                # waits, so that others are idle for a while
                open_futures[-1][1].result()  # type: ignore[attr-defined]
        losses: Dict[int, List[object]] = {i: [] for i in range(runs)}
        for run, future in open_futures:
            result = future.result()  # type: ignore[attr-defined]
            losses[run].append((result.metrics["loss:sum"], [o["logprobs"].tolist() for o in result.loss_fn_outputs]))
        adapters = [adapter(service, client, "end") for client in clients]
        return losses, adapters, running.log.read_text(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--room", type=int, default=8)
    parser.add_argument("--operations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    with TemporaryDirectory() as folder:
        # the server has its threads and its cores to itself in both cases: only the room differs
        small = settings(Path(folder), f"""
            bios.engine.run-bytes = {a.room * state_bytes()}
            bios.run.results {{ memory-bytes = 16 KiB, node-bytes = 256 KiB }}
            bios.run.idle-after = 2 s
        """)
        crowded = play(small, a.runs, a.operations, a.seed)
        wanted = play([], a.runs, a.operations, a.seed)
    same(f"losses of {a.runs} runs with room for {a.room}", crowded[0], wanted[0])
    same("their adapters", crowded[1], wanted[1])
    room = re.search(r" runs=(\d+)", crowded[2])
    holds("the small server had little room", room is not None and int(room.group(1)) == a.room * state_bytes())


if __name__ == "__main__":
    main()
