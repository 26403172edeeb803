"""The unmodified Tinker SDK trains through faults of a real cluster and gets the same bits as without.

    python sdk_faults.py [--seed N] [--faults N] [--clients N] [--steps N] [--kinds KIND,...] [--sabotage]

Needs the package `tinker` (with torch); without it the check says so and is skipped. Several clients, each with only
`base_url` and a key set, train (pipelined steps of several losses, a batch of two parts), evaluate, save, load and sample
through one coordinator of a cluster (`bios cluster`: coordinators, workers, Cassandra). First undisturbed; then again with
the same data while that coordinator, a worker or Cassandra is killed with `kill -9`, at moments that the seed fixes. No call
may raise, and every loss, log-probability, sampled token, the steps behind the last fault and the adapters' bytes must be
equal to the last bit. `--sabotage` takes the learning rate from one step of one client: the check must then fail, which shows that it can.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import tarfile
import threading
import time
import traceback
import urllib.request
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Tuple

try:
    import tinker
    from tinker import types
except ImportError as missing:
    print(f"skipped: the Tinker SDK is not installed ({missing})")
    sys.exit(0)

from cluster import Cluster, cluster
from faults import Faults, log
from harness import NAME, VOCABULARY, holds, same

KEY = "tml-faults"
PATIENCE_SECONDS = 900
#: Operations that a client has under way.
WINDOW = 6
Result = Tuple[str, object]


class SdkFaults(Faults):
    """Faults of the cluster; of the coordinators, the one that the clients talk to is hit."""

    url = ""
    _killed = 0

    def kill_coordinator(self) -> None:
        port = int(self.url.rsplit(":", 1)[1])
        while True:
            for name, node in self._running.nodes().items():
                if node.get("http_port") == port and node["role"] == "coordinator" and node.get("pid", 0) not in (0, self._killed):
                    self._killed = node["pid"]
                    log(f"  kill -9 {name} (pid {node['pid']}), which the clients talk to")
                    self._running.signal(name, signal.SIGKILL)
                    return
            time.sleep(0.2)


def tensor(values: List[float], dtype: str) -> Any:
    return types.TensorData(data=values, dtype=dtype, shape=[len(values)])


def batch(seed: int, loss: str, sequences: int, longest: int) -> List[Any]:
    """Random sequences with the inputs of a loss, the same for the same seed."""
    chance = random.Random(seed)
    data = []
    for _ in range(sequences):
        tokens = [chance.randrange(VOCABULARY) for _ in range(chance.randint(2, longest))]
        length = len(tokens) - 1
        inputs = {"target_tokens": tensor(tokens[1:], "int64")}
        if loss == "cross_entropy":
            inputs["weights"] = tensor([round(chance.random(), 3) for _ in range(length)], "float32")
        else:
            inputs["logprobs"] = tensor([-6.0 - chance.random() for _ in range(length)], "float32")
            inputs["advantages"] = tensor([round(chance.gauss(0, 1), 3) for _ in range(length)], "float32")
        data.append(types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs))
    return data


def trained(result: Any) -> object:
    return dict(result.metrics), [[float(value) for value in o["logprobs"].data] for o in result.loss_fn_outputs]


def stepped(result: Any) -> object:
    return dict(result.metrics or {})


def drawn(result: Any) -> object:
    return [(list(sequence.tokens), list(sequence.logprobs), str(sequence.stop_reason)) for sequence in result.sequences]


def name_of(result: Any) -> object:
    return result.path.rsplit("/", 1)[1]


class Client:
    """One client of the SDK and its run."""

    def __init__(self, url: str, seed: int, steps: int, reached: Callable[[], None], left_out: int = -1) -> None:
        self.service = tinker.ServiceClient(base_url=url, api_key=KEY)
        self.seed, self.steps, self.reached, self.left_out = seed, steps, reached, left_out
        self.results: List[Result] = []
        self._under_way: Deque[Tuple[str, Callable[[Any], object], Any]] = deque()
        self.run: Any = None

    def _took(self, name: str, value: object) -> None:
        self.results.append((name, value))
        self.reached()

    def _submitted(self, name: str, read: Callable[[Any], object], future: Any) -> None:
        self._under_way.append((name, read, future))
        while len(self._under_way) > WINDOW:
            self._finish_one()

    def _finish_one(self) -> None:
        name, read, future = self._under_way.popleft()
        self._took(name, read(future.result(timeout=PATIENCE_SECONDS)))

    def _pass(self, name: str, seed: int, loss: str, sequences: int, longest: int) -> None:
        self._submitted(name, trained, self.run.forward_backward(batch(seed, loss, sequences, longest), loss))

    def work(self) -> None:
        """The whole program, the same for the same seed."""
        chance = random.Random(self.seed)
        self.run = self.service.create_lora_training_client(base_model=NAME, rank=8, seed=self.seed)
        states: List[str] = []
        for step in range(self.steps):
            loss = chance.choice(("cross_entropy", "cross_entropy", "importance_sampling", "ppo"))
            rate, clip = chance.choice((1e-3, 3e-4)), chance.choice((0.0, 1.0))
            if step == self.steps // 2:  # the SDK sends it as two parts
                self._pass(f"large pass {step}", self.seed * 1000 + step, "cross_entropy", 1100, 3)
            else:
                self._pass(f"pass {step}", self.seed * 1000 + step, loss, chance.randint(4, 16), 64)
            if step == self.left_out:
                rate = 0.0
            self._submitted(f"step {step}", stepped, self.run.optim_step(
                types.AdamParams(learning_rate=rate, grad_clip_norm=clip)))
            self._aside(step, chance, states)
        while self._under_way:
            self._finish_one()

    def _aside(self, step: int, chance: random.Random, states: List[str]) -> None:
        """What comes between the steps: evaluation, saves, loads, samples."""
        what = chance.random()
        if what < 0.15:
            saved = self.run.save_state(f"at.{step}").result(timeout=PATIENCE_SECONDS)
            states.append(saved.path)
            self._took(f"save {step}", name_of(saved))
        elif what < 0.25 and states:
            self._submitted(f"load {step}", lambda _: "loaded", self.run.load_state_with_optimizer(chance.choice(states)))
        elif what < 0.4:
            self._submitted(f"forward {step}", trained, self.run.forward(
                batch(self.seed + step, "cross_entropy", 6, 48), "cross_entropy"))
        elif what < 0.6:
            sampler = self.run.save_weights_and_get_sampling_client()
            self._sampled(f"sample {step}", sampler, step)
        elif what < 0.7:
            path = self.run.save_weights_for_sampler(f"for.{step}").result(timeout=PATIENCE_SECONDS).path
            self._sampled(f"sample of a path {step}", self.service.create_sampling_client(model_path=path), step)

    def _sampled(self, name: str, sampler: Any, seed: int) -> None:
        params = types.SamplingParams(max_tokens=24, seed=seed, temperature=1.0)
        prompt = types.ModelInput.from_ints([5, 17, 900, 3, 41])
        self._submitted(name, drawn, sampler.sample(prompt, 2, params))

    def end(self) -> Dict[str, object]:
        """The adapter, a few more steps (which would show another state of the optimizer), and the adapter after these."""
        before = self._adapter("end")
        more = []
        for step in range(3):
            future = self.run.forward_backward(batch(self.seed * 77 + step, "cross_entropy", 4, 48), "cross_entropy")
            self.run.optim_step(types.AdamParams(learning_rate=1e-3)).result(timeout=PATIENCE_SECONDS)
            more.append(trained(future.result(timeout=PATIENCE_SECONDS)))
        return {"adapter": before, "steps behind it": more, "adapter behind them": self._adapter("later")}

    def _adapter(self, name: str) -> bytes:
        path = self.run.save_weights_for_sampler(name).result(timeout=PATIENCE_SECONDS).path
        rest = self.service.create_rest_client()
        url = rest.get_checkpoint_archive_url_from_tinker_path(path).result(timeout=PATIENCE_SECONDS).url
        with urllib.request.urlopen(url, timeout=120) as answer:
            archive = answer.read()
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r") as tar:
            names = [member for member in tar.getnames() if member.endswith("adapter_model.safetensors")]
            holds(f"the archive of {name} has its adapter", len(names) == 1)
            member = tar.extractfile(names[0])
            assert member is not None
            return member.read()


def together(clients: List[Client]) -> None:
    """Executes the programs at the same time; raises what one of them raised."""
    failures: List[BaseException] = []

    def one(client: Client) -> None:
        try:
            client.work()
        except BaseException as failed:
            traceback.print_exc()
            failures.append(failed)

    threads = [threading.Thread(target=one, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"✗ a call of the SDK raised {type(failures[0]).__name__}: {failures[0]}")


def compared(seeds: List[int], quiet: List[Client], broken: List[Client]) -> None:
    for seed, before, after in zip(seeds, quiet, broken):
        for one, other in zip(after.results, before.results):
            if one != other:
                same(f"client {seed}: result of {one[0]}", one, other)
        same(f"client {seed}: all {len(before.results)} results", len(after.results), len(before.results))


def check(running: Cluster, arguments: argparse.Namespace) -> None:
    seeds = [arguments.seed * 100 + i for i in range(arguments.clients)]
    url = running.urls[0]

    def clients(reached: Callable[[], None], left_out: int = -1) -> List[Client]:
        return [Client(url, seed, arguments.steps, reached, left_out if seed == seeds[0] else -1) for seed in seeds]

    log(f"undisturbed, through {url} ...")
    began = time.monotonic()
    quiet = clients(lambda: None)
    together(quiet)
    wanted = [client.end() for client in quiet]
    log(f"undisturbed: {time.monotonic() - began:.1f} s")
    faults = SdkFaults(running, arguments.kinds.split(","), arguments.faults,
                       sum(len(client.results) for client in quiet), arguments.seed)
    faults.url = url
    began = time.monotonic()
    broken = clients(faults.reached, arguments.steps // 2 + 1 if arguments.sabotage else -1)
    faults.thread.start()
    together(broken)
    faults.finish(began)
    compared(seeds, quiet, broken)
    for seed, client, before in zip(seeds, broken, wanted):
        after = client.end()
        for what, value in before.items():
            same(f"client {seed}: {what}", after[what], value)


def main() -> None:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=6)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--coordinators", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", default="kill_coordinator,kill_worker,kill_cassandra")
    parser.add_argument("--sabotage", action="store_true")
    arguments = parser.parse_args()
    status = 1
    try:
        with cluster(coordinators=arguments.coordinators, workers=arguments.workers) as running:
            check(running, arguments)
        print(f"tinker {version('tinker')}: the same bits through {arguments.faults} faults", flush=True)
        status = 0
    except SystemExit as ended:
        print(ended, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the SDK's threads would go on asking


if __name__ == "__main__":
    main()
