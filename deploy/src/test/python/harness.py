"""Shared by the end-to-end checks: server processes, killed by pid, and small data.

A check is a script: it exits 0 when all checks pass. The server's command comes from `BIOS_COMMAND` (words as a shell
splits them; default: the launcher at the root); the model folder from `BIOS_TEST_MODEL` (default: the shipped one).
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT / "protocol" / "python" / "src"))

import bios  # noqa: E402
from bios import types  # noqa: E402

MODEL = Path(os.environ.get("BIOS_TEST_MODEL", ROOT / "deploy" / "models" / "bios-tiny"))
NAME = "bios/tiny"
VOCABULARY = 1000
START_LIMIT_SECONDS = 180


def free_port() -> int:
    """A TCP port of the loopback interface without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One `bios up` process over a data folder that outlives it."""

    def __init__(self, data: Path, models: Optional[Dict[str, Path]] = None, arguments: Optional[List[str]] = None) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.models = models or {NAME: MODEL}
        self.arguments = arguments or []
        self.log = data / "server.log"
        self.process: Optional[subprocess.Popen] = None
        self._seen = 0

    def start(self) -> "Server":
        """Starts the process and waits until it reports that it is ready."""
        self.launch()
        return self.await_ready()

    def launch(self) -> None:
        """Starts the process without waiting."""
        command = shlex.split(os.environ.get("BIOS_COMMAND", str(ROOT / "bios")))
        command += ["up", "--port", str(self.port), "--data", str(self.data)] + self.arguments
        for name, folder in self.models.items():
            command += ["--model", f"{name}={folder}"]
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def await_ready(self) -> "Server":
        """Waits until the launched process reports that it is ready."""
        assert self.process is not None
        limit = time.monotonic() + START_LIMIT_SECONDS
        while f"bios ready on {self.url}".encode() not in self.log.read_bytes()[self._seen:]:
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the server did not start:\n{self.tail()}")
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if the process does not end."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemExit(f"the server did not stop on SIGTERM:\n{self.tail()}")

    def tail(self) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def client(self, key: Optional[str] = None) -> "bios.ServiceClient":
        """A client of this server."""
        return bios.ServiceClient(base_url=self.url, api_key=key)


@contextmanager
def server(**settings: object) -> Iterator[Server]:
    """A server in a temporary folder; on a failure the end of its log is printed."""
    folder = Path(tempfile.mkdtemp(prefix="bios-check-"))
    running = Server(folder, **settings)  # type: ignore[arg-type]
    try:
        yield running.start()
    except BaseException:
        sys.stderr.write(f"---- end of the server's log ----\n{running.tail()}\n")
        raise
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def against_server(against: Callable[[str, str], Dict[str, str]]) -> Dict[str, str]:
    """What ``against(url, only)`` finds: with the server of ``--url URL``, else with one that is started; ``only`` is the
    part of a name that ``--only`` gives, else empty."""
    def value(option: str) -> str:
        return sys.argv[sys.argv.index(option) + 1] if option in sys.argv else ""

    if "--url" in sys.argv:
        return against(value("--url"), value("--only"))
    with server() as running:
        return against(running.url, value("--only"))


def batch(seed: int, sequences: int = 4, longest: int = 48) -> List["types.Datum"]:
    """Random sequences of different lengths with random weights, the same for the same seed."""
    chance = random.Random(seed)
    data = []
    for _ in range(sequences):
        tokens = [chance.randrange(VOCABULARY) for _ in range(chance.randint(2, longest))]
        data.append(types.Datum(
            model_input=types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={"target_tokens": tokens[1:], "weights": [round(chance.random(), 3) for _ in tokens[1:]]}))
    return data


def train(client: "bios.TrainingClient", steps: range, seed: int = 0, **adam: float) -> List[object]:
    """Submits steps without waiting; the futures of their losses."""
    futures = []
    for step in steps:
        futures.append(client.forward_backward(batch(seed * 1000 + step), "cross_entropy"))
        client.optim_step(types.AdamParams(**{"learning_rate": 1e-3, **adam}))
    return futures


def results(futures: List[object]) -> List[object]:
    """Losses and log-probabilities of steps, to compare to the last bit."""
    out = []
    for future in futures:
        result = future.result()  # type: ignore[attr-defined]
        out.append((result.metrics["loss:sum"], [list(o["logprobs"].tolist()) for o in result.loss_fn_outputs]))
    return out


def adapter(service: "bios.ServiceClient", client: "bios.TrainingClient", name: str) -> bytes:
    """The bytes of the adapter's safetensors as its archive holds them."""
    import io
    import tarfile

    path = client.save_state(name).result().path
    archive = service.create_rest_client().download_checkpoint_archive_from_bios_path(path).result()
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        member = tar.extractfile("adapter/adapter_model.safetensors")
        assert member is not None
        return member.read()


def same(what: str, one: object, other: object) -> None:
    """Ends the check unless both are equal."""
    if one != other:
        raise SystemExit(f"✗ {what}: differ\n  {str(one)[:300]}\n  {str(other)[:300]}")
    print(f"✓ {what}", flush=True)


def holds(what: str, condition: bool) -> None:
    """Ends the check unless the condition holds."""
    if not condition:
        raise SystemExit(f"✗ {what}")
    print(f"✓ {what}", flush=True)


def blob_files(data: Path, kind: str) -> List[Path]:
    """The files of the blobs of a kind (checkpoints, recovery, results, operations) in the data folder of a server."""
    blobs = data / "blobs" / "blobs"
    return sorted(f for f in blobs.rglob("*") if f.is_file() and kind in f.relative_to(blobs).parts)


def folder_bytes(folder: Path) -> int:
    """The bytes that the files below a folder take on the disk; files that vanish meanwhile count nothing."""
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(where, file)).st_blocks * 512
            except OSError:
                pass
    return total


def until(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit(f"✗ {what}: not within {seconds} s")
        time.sleep(0.1)
    print(f"✓ {what}", flush=True)


def page(running: Server, path: str, body: object = None) -> Tuple[int, str]:
    """Status and text of an endpoint, without a key."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(running.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()
