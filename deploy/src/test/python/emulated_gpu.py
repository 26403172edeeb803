"""The program on an emulated CUDA device: `gpu-check`, a server whose device is lost in the middle of a run, and
`bios up` and `bios cluster` with several cards that lose one of them, or have lost it when they start.

The stand-ins for NVIDIA's libraries are those that the tests of the worker built, or are built here; without g++ the
check says so and ends. `--parts` chooses.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from cluster import cluster
from harness import ROOT, Server, adapter, batch, bios, holds, results, same, server, types, until

PARTS = ("gpu_check", "lost", "start", "up", "cluster")
STEPS = 4
CARDS = 2
CHECKED = ("verbs", "models", "bits", "ceilings", "train", "tenants", "profile", "mixed", "decode",
           "decode-profile", "variants")
DEVICE_LOST = 75


def emulator(folder: Path) -> bool:
    """Puts the emulated device in front of NVIDIA's libraries for the processes that are started from here."""
    if shutil.which("g++") is None:
        print("no g++: the CUDA device is not emulated")
        return False
    sources = ROOT / "worker" / "src" / "test" / "cuda"
    newest = max(file.stat().st_mtime for file in sources.rglob("*") if file.is_file())
    target = ROOT / "worker" / "target" / "cuda-emulator"
    built = [f.parent for f in target.glob("*/libcublasLt.so.12") if f.stat().st_mtime > newest]
    if not built:
        built = [folder / "emulator"]
        subprocess.run(["sh", str(sources / "build.sh"), str(built[0])], check=True)
    os.environ.update(
        LD_LIBRARY_PATH=str(built[0]), CUDA_EMULATOR_CHECK="0", CUDA_EMULATOR_CACHE=str(target / "kernels"),
        XDG_CACHE_HOME=str(folder / "cache"), CUDA_EMULATOR_FAULT=f"lost@{folder / 'lost'}")
    return True


def gpu_check(folder: Path, checks: List[str]) -> None:
    """Parts of `gpu-check` run on the card, find nothing wrong and are in its file."""
    file = folder / "gpu.json"
    command = shlex.split(os.environ.get("BIOS_COMMAND", str(ROOT / "bios")))
    ended = subprocess.run(command + ["gpu-check", "--tiny", "--json", str(file), "--seconds", "7200",
                                      "--only", ",".join(checks)], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    if ended.returncode != 0:
        raise SystemExit(f"✗ gpu-check on the emulated card: status {ended.returncode}\n{ended.stdout[-6000:]}")
    found = json.loads(file.read_text())
    holds(f"it ran on {found['device']}", "Emulated" in found["device"])
    same("nothing failed and nothing was left out", (found["failed"], found["left_out"]), ([], []))
    for part in checks:
        holds(f"the file has {part}", len(found.get(part, {})) > 1)


def train(client: "bios.TrainingClient", seed: int = 0) -> List[object]:
    """Submits short steps without waiting: the emulated card computes slowly."""
    futures = []
    for step in range(STEPS):
        futures.append(client.forward_backward(batch(seed + step, sequences=2, longest=8), "cross_entropy"))
        client.optim_step(types.AdamParams(learning_rate=1e-3))
    return futures


def lost(folder: Path) -> None:
    """A server whose card is lost starts the process of the card again; its run has the bits of one left in peace."""
    trigger = folder / "lost"
    with server(arguments=["--device", "cuda"]) as running:
        service = running.client()
        quiet = service.create_lora_training_client(base_model="bios/tiny", rank=2, seed=6)
        undisturbed = results(train(quiet))
        wanted = adapter(service, quiet, "end")
        run = service.create_lora_training_client(base_model="bios/tiny", rank=2, seed=6)
        futures = train(run)
        futures[1].result()
        trigger.touch()
        until("its process ends with the status of a lost device",
              lambda: f"ended with status {DEVICE_LOST}" in running.tail())
        trigger.unlink()
        same("every result of a run whose device was lost", results(futures), undisturbed)
        same("its adapter", adapter(service, run, "end"), wanted)


def start_lost(folder: Path) -> None:
    """A worker whose card is lost when it starts is started again until the card works, alone and as one of two; the
    service is ready then."""
    for arguments, card, said in ((["--device", "cuda"], 0, f"ended with status {DEVICE_LOST}"),
                                  ([], 1, f"worker-2 ended with status {DEVICE_LOST}")):
        lost_card = folder / f"lost.{card}"
        lost_card.touch()
        os.environ["CUDA_EMULATOR_CARDS"] = str(1 if arguments else CARDS)
        place = Path(tempfile.mkdtemp(prefix="bios-check-"))
        starting = Server(place, arguments=arguments)
        try:
            starting.launch()
            until("a process whose card is lost ends with its status", lambda: said in starting.tail(), 180)
            holds("the others wait for it", starting.process is not None and starting.process.poll() is None)
            lost_card.unlink()
            starting.await_ready()
            run = starting.client().create_lora_training_client(base_model="bios/tiny", rank=2, seed=6)
            holds("and it trains", len(results(train(run))) == STEPS)
        except BaseException:
            print(starting.tail(), file=sys.stderr)
            raise
        finally:
            starting.stop()
            del os.environ["CUDA_EMULATOR_CARDS"]
            shutil.rmtree(place, ignore_errors=True)


def node(service: "bios.ServiceClient", run: "bios.TrainingClient") -> str:
    """The worker that a run is on, by its history."""
    history = service.create_rest_client().get_training_run_history(run.model_id, 100).result().history
    return [entry.node for entry in history if entry.node][-1]


def one_of_several(folder: Path, runs: int, service: "bios.ServiceClient", said: Path, logs: Dict[str, Path]) -> None:
    """The runs of a card that is lost go on on another one with the bits of runs in peace; its worker is started again
    until the card works. The workers' logs are in the order of their cards; `said` is what supervises them."""
    seeds = [100 * (i + 1) for i in range(runs)]

    def begin() -> Dict[int, "bios.TrainingClient"]:
        return {seed: service.create_lora_training_client(base_model="bios/tiny", rank=2, seed=seed) for seed in seeds}

    quiet = begin()
    started = {seed: train(quiet[seed], seed) for seed in seeds}
    undisturbed = {seed: results(started[seed]) for seed in seeds}
    wanted = {seed: adapter(service, quiet[seed], "end") for seed in seeds}

    broken = begin()
    futures = {seed: train(broken[seed], seed) for seed in seeds}
    futures[seeds[0]][0].result()
    victim = node(service, broken[seeds[0]])
    lost_card = folder / f"lost.{list(logs).index(victim)}"
    ready = logs[victim].read_bytes().count(b"bios ready ")
    lost_card.touch()
    until(f"{victim} ends with the status of a lost device",
          lambda: f"{victim} ended with status {DEVICE_LOST}" in said.read_text(errors="replace"), 120)
    for seed in seeds:
        same(f"run {seed}: every result beside the lost card", results(futures[seed]), undisturbed[seed])
        same(f"run {seed}: its adapter", adapter(service, broken[seed], "end"), wanted[seed])
    holds("the run has moved to another card", node(service, broken[seeds[0]]) != victim)
    lost_card.unlink()
    until(f"{victim} works again when its card does",
          lambda: logs[victim].read_bytes().count(b"bios ready ") > ready, 120)


def cluster_lost(folder: Path, runs: int) -> None:
    """`bios cluster` gives each card a worker."""
    with cluster(coordinators=1, workers=CARDS, environment={"CUDA_EMULATOR_CARDS": str(CARDS)}) as running:
        workers = running.names("worker")
        for card, name in enumerate(workers):
            holds(f"{name} computes on card {card}", f"device=cuda:{card}" in running.command(name))
        one_of_several(folder, runs, running.client(), running.log,
                       {name: running.data / "logs" / f"{name}.log" for name in workers})


def up_lost(folder: Path, runs: int) -> None:
    """So does `bios up`, whose workers use its journal; the whole of it, killed and started again, has lost nothing."""
    os.environ["CUDA_EMULATOR_CARDS"] = str(CARDS)
    try:
        with server() as running:
            service = running.client()
            logs = {f"worker-{i + 1}": running.data / "logs" / f"worker-{i + 1}.log" for i in range(CARDS)}
            one_of_several(folder, runs, service, running.log, logs)
            kept = service.create_lora_training_client(base_model="bios/tiny", rank=2, seed=1)
            before = results(train(kept, 1))
            running.kill()
            running.start()
            again = service.create_lora_training_client(base_model="bios/tiny", rank=2, seed=1)
            same("the same steps after the whole was killed", results(train(again, 1)), before)
            same("the run from before", adapter(service, kept, "end"), adapter(service, again, "end"))
    finally:
        del os.environ["CUDA_EMULATOR_CARDS"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--runs", type=int, default=4, help="runs at once on several cards")
    parser.add_argument("--checks", default=",".join(CHECKED), help="parts of gpu-check")
    asked = parser.parse_args()
    chosen = asked.parts.split(",")
    place = Path(tempfile.mkdtemp(prefix="bios-emulated-gpu-"))
    try:
        if emulator(place):
            if "gpu_check" in chosen:
                gpu_check(place, asked.checks.split(","))
            if "lost" in chosen:
                lost(place)
            if "start" in chosen:
                start_lost(place)
            if "up" in chosen:
                up_lost(place, asked.runs)
            if "cluster" in chosen:
                cluster_lost(place, asked.runs)
    finally:
        shutil.rmtree(place, ignore_errors=True)
