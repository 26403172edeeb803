"""The main job of Bios, from nothing: what `bios demo` runs.

Starts a server of its own in a temporary folder, trains an adapter of a base model on Edward Lear's limericks through the Python
package, kills the server with SIGKILL in the middle and starts it again, trains on without losing a step,
resumes a second run from a checkpoint, samples before and after, and downloads the adapter.

Exit status: 0 when all checks passed, 1 otherwise.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import List, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "protocol" / "python" / "src"))

import bios  # noqa: E402
from bios import types  # noqa: E402

PROMPT = "There was"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One `bios up` process; `kill` is `kill -9`."""

    def __init__(self, data: Path, model: Path, name: str, port: int) -> None:
        self.data, self.model, self.name, self.port = data, model, name, port
        self.log = data / "server.log"
        self.process: Optional[subprocess.Popen] = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Starts the process; returns the seconds until it served."""
        begin = time.monotonic()
        seen = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*shlex.split(os.environ.get("BIOS_COMMAND", str(ROOT / "bios"))), "up", "--port", str(self.port), "--data", str(self.data),
                 "--model", f"{self.name}={self.model}"], stdout=log, stderr=subprocess.STDOUT)
        while f"bios ready on {self.url}".encode() not in self.log.read_bytes()[seen:]:
            if self.process.poll() is not None or time.monotonic() - begin > 120:
                sys.stderr.write(self.log.read_text(errors="replace")[-4000:])
                raise SystemExit("bios demo: the server did not start; its log is above")
            time.sleep(0.05)
        return time.monotonic() - begin

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def batches(tokenizer: object, eos: List[int], size: int) -> List[List[types.Datum]]:
    """The limericks as batches of sequences, each to predict its next token throughout."""
    poems = (ROOT / "deploy" / "demo" / "limericks.txt").read_text().strip().split("\n\n")
    data = []
    for poem in poems:
        tokens = eos + tokenizer.encode(poem) + eos
        data.append(types.Datum(
            model_input=types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)}))
    return [data[i:i + size] for i in range(0, len(data), size)]


def plot(losses: List[float], height: int = 8, width: int = 60) -> str:
    """A small plot of a falling line, in characters."""
    columns = [losses[i * len(losses) // width] for i in range(width)] if len(losses) > width else losses
    low, high = min(columns), max(columns)
    rows = [[" "] * len(columns) for _ in range(height)]
    for x, loss in enumerate(columns):
        rows[round((high - loss) / max(high - low, 1e-9) * (height - 1))][x] = "•"
    lines = [f"{high - (high - low) * y / (height - 1):6.2f} ┤" + "".join(row) for y, row in enumerate(rows)]
    return "\n".join(lines + ["       └" + "─" * len(columns) + " step"])


class Run:
    """A training loop with a progress bar: one `forward_backward` and one `optim_step` a step."""

    def __init__(self, client: bios.TrainingClient, data: List[List[types.Datum]], total: int) -> None:
        self.client, self.data, self.total = client, data, total
        self.losses: List[float] = []

    def train(self, steps: int, kill: Optional[Server] = None) -> None:
        """Trains; with `kill`, the server dies while the last of these steps are under way."""
        futures = []
        for i in range(steps):
            batch = self.data[(len(self.losses) + len(futures)) % len(self.data)]
            futures.append(self.client.forward_backward(batch, "cross_entropy"))
            self.client.optim_step(types.AdamParams(learning_rate=4e-3))
            if kill is None or i < steps - 6:
                while futures:
                    self.finish(futures.pop(0))
        if kill is not None:
            kill.kill()
            print("\n\n  ✗ server killed (SIGKILL), with accepted steps still under way")
            print(f"  ✓ server ready again after {kill.start():.1f} s; the run has recovered", flush=True)
            while futures:
                self.finish(futures.pop(0))

    def finish(self, future: object) -> None:
        metrics = future.result().metrics
        self.losses.append(metrics["loss:sum"] / metrics["weights:sum"])
        done = len(self.losses) * 30 // self.total
        end = "" if sys.stdout.isatty() else "\n"
        if end == "" or len(self.losses) % 10 == 0 or len(self.losses) == 1:
            print(f"\r  [{'█' * done}{'·' * (30 - done)}] step {len(self.losses):3d}/{self.total}"
                  f"  loss {self.losses[-1]:.3f}", end=end, flush=True)


def samples(client: object, tokenizer: object, count: int = 2) -> List[str]:
    """Some continuations of the prompt."""
    prompt = types.ModelInput.from_ints(tokenizer.encode(PROMPT))
    parameters = types.SamplingParams(max_tokens=64, temperature=0.6, seed=7)
    result = client.sample(prompt, parameters, num_samples=count).result()
    return [PROMPT + tokenizer.decode(s.tokens) for s in result.sequences]


def show(title: str, texts: List[str]) -> None:
    print(f"\n{title}")
    for text in texts:
        print("\n".join("  │ " + line for line in text.strip().splitlines()))
        print("  ╵")


def demo(arguments: argparse.Namespace, folder: Path) -> None:
    """The whole story; raises on anything that did not hold."""
    name = arguments.name
    server = Server(folder, Path(arguments.model), name, free_port())
    try:
        print(f"① a server on {server.url}, data in {folder}")
        print(f"  ready after {server.start():.1f} s, serving {name} from {arguments.model}")
        service = bios.ServiceClient(base_url=server.url)
        client = service.create_lora_training_client(base_model=name, rank=16, seed=1)
        tokenizer = client.get_tokenizer()
        eos = tokenizer.encode("<|endoftext|>")
        data = batches(tokenizer, eos if len(eos) == 1 else [], size=8)
        before = service.create_sampling_client(base_model=name)
        show(f"② what the base model says after “{PROMPT}”", samples(before, tokenizer))

        total = arguments.steps
        print(f"\n③ train run {client.model_id}: rank 16, {sum(map(len, data))} limericks, {total} steps")
        run = Run(client, data, total)
        run.train(total // 2)
        path = client.save_state("halfway", metadata={"step": total // 2}).result().path
        print(f"\n  saved {path}")
        run.train(total // 4, kill=server)
        run.train(total - len(run.losses))
        print("\n\n" + plot(run.losses))

        print("\n④ resume a second run from the checkpoint and train it the same steps")
        resumed = Run(service.load_training_client(path), data, total)
        resumed.losses = run.losses[:total // 2]
        resumed.train(total - total // 2)
        print()
        if resumed.losses != run.losses:
            raise SystemExit("bios demo: the resumed run's losses differ from the first run's")
        print("  ✓ every loss equals the first run's to the last bit: no step lost, none repeated")

        after = client.save_weights_and_get_sampling_client("limericks")
        show(f"⑤ what it says now after “{PROMPT}”", samples(after, tokenizer))

        archive = service.create_rest_client().download_checkpoint_archive_from_bios_path(
            f"bios://{client.model_id}/sampler_weights/limericks").result()
        target = Path(arguments.out or folder / "adapter.tar.gz")
        target.write_bytes(archive)
        members = tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz").getnames()
        print(f"\n⑥ downloaded {target} ({len(archive) / 1e6:.1f} MB): {', '.join(members)}")
        if not run.losses[-1] < 0.7 * run.losses[0]:
            raise SystemExit(f"bios demo: the loss went from {run.losses[0]:.2f} to only {run.losses[-1]:.2f}")
        print(f"\n✓ loss {run.losses[0]:.2f} → {run.losses[-1]:.2f}; all checks passed")
    finally:
        server.stop()


def main() -> int:
    """Reads the command line and runs the demo in a temporary folder."""
    parser = argparse.ArgumentParser(prog="bios demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "deploy" / "models" / "bios-tiny"), help="folder of the base model")
    parser.add_argument("--name", default="bios/tiny", help="the name to serve it under")
    parser.add_argument("--steps", type=int, default=60, help="training steps (at least 16)")
    parser.add_argument("--out", help="where to put the adapter's archive; without it, it goes with the temporary folder")
    arguments = parser.parse_args()
    if arguments.steps < 16:
        parser.error("--steps: at least 16")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends, too
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bios-demo-"))
    try:
        demo(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"  {time.monotonic() - begin:.0f} s in all")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
