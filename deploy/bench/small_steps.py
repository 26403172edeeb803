"""How long one small training step takes, as a Python program sees it: forward_backward and optim_step of 1 x 8 tokens.

Prints one JSON line. ``bios bench gateway`` starts a server and runs this against it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "protocol" / "python" / "src"))

import bios  # noqa: E402
from bios import types  # noqa: E402


def timed(job: Callable[[], object], count: int) -> List[float]:
    """Milliseconds of each of so many calls, in ascending order."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        job()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)


def percentile(ascending: List[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def summary(prefix: str, ascending: List[float]) -> Dict[str, float]:
    """Its 50th, 90th and 99th percentile and mean."""
    found = {f"{prefix}p{percent}_ms": round(percentile(ascending, percent), 3) for percent in (50, 90, 99)}
    return {**found, f"{prefix}mean_ms": round(sum(ascending) / len(ascending), 3)}


class Plain:
    """A kept connection that does as little as a client can: the floor of a call."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=60)

    def get(self, path: str) -> bytes:
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"GET {path}: status {answer.status}")
        return body


def parts_of_server(plain: Plain, run: str, pairs: int) -> Dict[str, float]:
    """What the server says of the newest operations: the median of each part for a pair, in milliseconds."""
    newest = json.loads(plain.get(f"/api/v1/training_runs/{run}/timings?limit={2 * min(pairs, 500)}"))["timings"]
    found = {}
    for part in ("journal", "queue", "engine"):
        both = sorted(a[f"{part}_ms"] + b[f"{part}_ms"] for a, b in zip(newest[::2], newest[1::2]))
        found[part] = round(percentile(both, 50), 3)
    return found


def main() -> int:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the server")
    parser.add_argument("--model", default="bios/tiny", help="the base model's name")
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter")
    parser.add_argument("--tokens", type=int, default=8, help="tokens of the sequence")
    parser.add_argument("--pairs", type=int, default=400, help="pairs measured")
    parser.add_argument("--warm-up", type=int, default=200, help="pairs before them")
    a = parser.parse_args()

    client = bios.ServiceClient(base_url=a.url).create_lora_training_client(base_model=a.model, rank=a.rank, seed=1)
    tokens = list(range(1, a.tokens + 2))
    batch = [types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": tokens[1:]})]
    params = types.AdamParams(learning_rate=1e-4)

    def pair() -> None:
        forward = client.forward_backward(batch, "cross_entropy")
        step = client.optim_step(params)
        forward.result()
        step.result()

    def in_turn() -> None:
        client.forward_backward(batch, "cross_entropy").result()
        client.optim_step(params).result()

    plain = Plain(a.url)
    timed(pair, a.warm_up)
    begin = time.process_time()
    pairs = timed(pair, a.pairs)
    processor = (time.process_time() - begin) * 1e3 / a.pairs
    line = {"pairs": a.pairs, "tokens": a.tokens, **summary("", pairs), "client_cpu_ms": round(processor, 3)}
    line.update(summary("in_turn_", timed(in_turn, a.pairs)))
    # only calls in turn have parts that add up: their operations do not wait for each other
    line["server"] = parts_of_server(plain, client.model_id, a.pairs)
    timed(lambda: plain.get("/api/v1/healthz"), a.warm_up)
    line["http_ms"] = round(percentile(timed(lambda: plain.get("/api/v1/healthz"), a.pairs), 50), 3)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
