"""The program on an emulated CUDA device: `gpu-check`, and a server whose device is lost in the middle of a run.

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
import tempfile
from pathlib import Path
from typing import List

from harness import ROOT, adapter, batch, bios, holds, results, same, server, types, until

PARTS = ("gpu_check", "lost")
STEPS = 4
CHECKED = ("verbs", "models", "bits", "ceilings", "train", "tenants", "profile", "mixed", "decode",
           "decode-profile")
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


def train(client: "bios.TrainingClient") -> List[object]:
    """Submits short steps without waiting: the emulated card computes slowly."""
    futures = []
    for step in range(STEPS):
        futures.append(client.forward_backward(batch(step, sequences=2, longest=8), "cross_entropy"))
        client.optim_step(types.AdamParams(learning_rate=1e-3))
    return futures


def lost(folder: Path) -> None:
    """A server whose card is lost ends with its status; started again, its run has the bits of one left in peace."""
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
        assert running.process is not None
        until("the process ends", lambda: running.process.poll() is not None)
        same("with the status of a lost device", running.process.returncode, DEVICE_LOST)
        trigger.unlink()
        running.start()
        same("every result of a run whose device was lost", results(futures), undisturbed)
        same("its adapter", adapter(service, run, "end"), wanted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
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
    finally:
        shutil.rmtree(place, ignore_errors=True)
