"""Damaged blobs, full disks and a suspended database are reported, and no accepted operation is lost.

    python damage.py [--parts blob,blobs_full,journal_full,frozen,places] [--seed N] [--places N]

- `blob`: a bit of a checkpoint's blob is flipped: loading it, sampling from it and downloading it fail and name the blob,
  the run that loads trains on once its client has seen the error, and all is well when the blob is whole again. (What a
  damaged recovery point does, observed.py checks.)
- `blobs_full`: the disk of the blobs is full while a run trains: a save fails, and says so; training goes on.
- `journal_full`: the disk of everything is full: nothing more is accepted, nothing acknowledged is lost.
- `places`: the embedded journal is damaged at seeded random places (cuts, flipped bits, pages of zeros, a missing or empty
  file), each in a copy of one prepared data folder. Each ends in the same results and the same next step, or in a refusal
  that names what would be lost; then `bios restore` (or --accept-loss) leads to a server that serves, and the histories
  say what was given up. (`DamagedPlacesTest` does the same below the entities, faster.)
- `frozen`: Cassandra is stopped (SIGSTOP) for a minute while a cluster trains.

After each, when there is room again or Cassandra goes on, service goes on by itself, without a restart, and all results and
the adapter are equal to the last bit to those of an undisturbed run. The disks are small tmpfs in a mount namespace of its
own (needs root and `unshare`; left out where that is not permitted). The end-to-end tests run `blob`, both full disks and a few
`places`; `frozen` and `--places 200` take minutes: run by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

from cluster import cluster
from faults import log
from harness import NAME, ROOT, Server, adapter, batch, bios, blob_files, holds, page, results, same, server, train, until
from poison import failure
from rolling import RESULT_SECONDS, Trained
from bios import types

NAMESPACE = "BIOS_DAMAGE_NAMESPACE"
FROZEN_SECONDS = 60
FULL_SECONDS = 20


def checkpoint_blobs(running: Server, run: str) -> List[Path]:
    """The blobs of a run's checkpoints."""
    return [f for f in blob_files(running.data, "checkpoints") if run in f.parts]


@contextmanager
def flipped(file: Path) -> Iterator[None]:
    """Flips one bit of the file meanwhile."""
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:])
    try:
        yield
    finally:
        file.write_bytes(whole)


@contextmanager
def away(file: Path) -> Iterator[None]:
    """Hides the file meanwhile."""
    other = file.with_name(file.name + ".away")
    file.rename(other)
    try:
        yield
    finally:
        other.rename(file)


def blob(seed: int) -> None:
    """A damaged checkpoint."""
    with server() as running:
        service = running.client()
        rest = service.create_rest_client()

        def fresh() -> Any:
            return service.create_lora_training_client(base_model=NAME, rank=4, seed=seed)

        quiet = fresh()
        wanted = results(train(quiet, range(5), seed) + train(quiet, range(10, 15), seed))
        wanted_adapter = adapter(service, quiet, "end")
        source = fresh()
        results(train(source, range(100, 103), seed))
        kept = source.save_state("kept").result().path
        weights = source.save_weights_for_sampler("drawn").result().path
        own = checkpoint_blobs(running, source.model_id)
        holds(f"the checkpoints have blobs of {[f.stat().st_size for f in own]} bytes", len(own) >= 2)
        run = fresh()
        got = results(train(run, range(5), seed))
        hurt = []
        for file in own:
            for how, code in ((flipped, "blob_damaged"), (away, "blob_missing")):
                with how(file):
                    load = run.load_state_with_optimizer(kept)
                    behind = run.forward_backward(batch(1), "cross_entropy")
                    why, then = failure(load), failure(behind)
                    if why is None:
                        continue
                    hurt.append(code)
                    holds(f"a load fails: {why}", why.code == code and file.name in why.message)
                    holds("and takes what is behind it with it", then is not None and then.code == code)
        holds("both blobs of the checkpoint are looked at", hurt.count("blob_damaged") == 2 and hurt.count("blob_missing") == 2)
        got += results(train(run, range(10, 15), seed))
        same("the run trains on as if it had loaded nothing", got, wanted)
        same("its adapter", adapter(service, run, "end"), wanted_adapter)
        sick = [flipped(file) for file in own]
        for one in sick:
            one.__enter__()
        sampler = service.create_sampling_client(model_path=weights)
        asked = sampler.sample(types.ModelInput.from_ints([1, 2, 3]), types.SamplingParams(max_tokens=4, seed=1), 1)
        why = failure(asked)
        holds(f"sampling from damaged weights fails: {why}",
              why is not None and any(file.name in why.message for file in own))
        try:
            rest.download_checkpoint_archive_from_bios_path(kept).result()
            raise SystemExit("✗ the archive of a damaged checkpoint was given out")
        except bios.BiosError as e:
            print(f"✓ its archive is not given out: {e}", flush=True)
        for one in sick:
            one.__exit__(None, None, None)
        run.load_state_with_optimizer(kept).result()
        source.load_state_with_optimizer(kept).result()
        more = results(train(run, range(200, 203), seed))
        same("whole again, it loads and trains on", more, results(train(source, range(200, 203), seed)))


class Ballast:
    """A file that fills a disk."""

    def __init__(self, disk: Path) -> None:
        self._disk, self._file = disk, disk / "ballast"

    def fill(self) -> None:
        """Fills the disk."""
        with open(self._file, "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        log(f"  the disk {self._disk} is full")

    def free(self) -> None:
        """Frees the space."""
        self._file.unlink()
        log(f"  the disk {self._disk} has room")


def full(seed: int, whole: bool) -> None:
    """A full disk: of all data, or of the blobs only."""
    place = Path(tempfile.mkdtemp(prefix="bios-damage-"))
    running = Server(place / "data")
    running.log = place / "server.log"
    disk = running.data if whole else running.data / "blobs"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "bios-damage", str(disk)], check=True)
    try:
        running.start()
        until_full(running, Ballast(disk), seed, whole)
        if os.environ.get("BIOS_KEEP"):
            print(f"log: {running.log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
    except BaseException:
        sys.stderr.write(f"---- end of the server's log ----\n{running.tail()}\n")
        raise
    finally:
        running.stop()
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(place, ignore_errors=True)


def until_full(running: Server, ballast: Ballast, seed: int, whole: bool) -> None:
    service = running.client()
    steps = 60

    def fresh() -> Any:
        return service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)

    quiet = fresh()
    wanted = results(train(quiet, range(steps), seed))
    wanted_adapter = adapter(service, quiet, "end")
    run = fresh()
    futures: List[Any] = []
    trouble: List[BaseException] = []

    def submit() -> None:
        try:
            for step in range(15, steps):  # a full disk takes no operation: each call waits
                futures.extend(train(run, range(step, step + 1), seed))
                time.sleep(0.05)
        except BaseException as e:  # told when it has ended
            trouble.append(e)

    futures.extend(train(run, range(15), seed))
    got = results(futures[:10])
    ballast.fill()
    thread = threading.Thread(target=submit, daemon=True)
    saves: List[Any] = []
    saver = threading.Thread(target=lambda: saves.append(failure(run.save_state("probe"))), daemon=True)
    saver.start()
    time.sleep(1)
    thread.start()
    began = time.monotonic()
    if whole:
        until("the log says that the journal has no room", lambda: "No space left on device" in
              running.log.read_text(errors="replace"), 120)
    else:
        rest = service.create_rest_client()

        def waits() -> bool:
            entries = rest.get_training_run_history(run.model_id).result().history
            return any(e.kind == "waiting" and e.detail.get("code") == "store_failed"
                       and "No space left on device" in e.detail.get("message", "") for e in entries)

        until("the history says that the save waits for room", waits, 120)
        holds("the save has not failed", not saves)
    time.sleep(max(0.0, began + FULL_SECONDS - time.monotonic()))
    log(f"  {len(futures)} steps accepted while it is full")
    ballast.free()
    thread.join(RESULT_SECONDS)
    saver.join(RESULT_SECONDS)
    if trouble:
        raise trouble[0]
    holds(f"all {len(futures)} steps were accepted, without a restart", len(futures) == steps and running.process.poll() is None)
    holds(f"the save that met the full disk is done: {saves}", saves == [None])
    got += results(futures[10:])
    same("all results", got, wanted)
    same("the adapter, saved anew", adapter(service, run, "end"), wanted_adapter)
    until("the server is ready", lambda: page(running, "/readyz")[0] == 200)
    running.kill()
    running.start()
    same("the results, asked for again after kill -9", results(futures), wanted)
    results(train(run, range(500, 502), seed))
    print("✓ and the run trains on", flush=True)


def frozen(seed: int) -> None:
    """A database that is suspended for a minute."""
    seeds = [seed * 100 + i for i in range(2)]
    with cluster(coordinators=2, workers=2) as running:
        over = threading.Event()
        disturbed = [Trained(running.client(), one, lambda _: not over.is_set()) for one in seeds]

        def moved(seen: List[int]) -> bool:
            return all(len(one.results) > count + 20 or one.failure for one, count in zip(disturbed, seen))

        until("the runs train", lambda: moved([0, 0]), 180)
        pid = running.pid("cassandra")
        seen = [len(one.results) for one in disturbed]
        log(f"  SIGSTOP cassandra (pid {pid}) for {FROZEN_SECONDS} s")
        os.kill(pid, signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        os.kill(pid, signal.SIGCONT)
        log(f"  SIGCONT; results meanwhile: {[len(one.results) - count for one, count in zip(disturbed, seen)]}")
        seen = [len(one.results) for one in disturbed]
        until("everything goes on", lambda: moved(seen), 180)
        over.set()
        for one in disturbed:
            one.join()
        print("✓ no call failed", flush=True)
        holds("no process was started again", running.pid("cassandra") == pid)
        quiet = [Trained(running.client(), seed, lambda done, own=one.chunks: done < own) for seed, one in zip(seeds, disturbed)]
        for one, other in zip(disturbed, quiet):
            same(f"all {len(one.results)} results", one.results, other.join().results)
            same("the adapter", adapter(running.client(), one.run, "end"), adapter(running.client(), other.run, "end"))


PLACE_LOG_LINES = 400
#: No recovery point behind the last steps, however slow the machine is: they are executed again from the journal.
JOURNAL_CONFIG = "bios.run { recovery-point.steps = 4, rest-after = 1 hour, idle-after = 1 hour }\n"


def damage(file: Path, kind: str, chance: random.Random, event: bytes) -> str:
    """Damages a file; says where. `event`: bytes of one stored event."""
    whole = file.read_bytes()
    at = chance.randrange(len(whole))
    if kind == "event":
        at = whole.find(event)
        holds(f"the event is found {whole.count(event)} times", at >= 0)
        file.write_bytes(whole.replace(event, event[:3] + bytes([event[3] ^ 1]) + event[4:]))
    elif kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "page":
        start = at & ~4095
        file.write_bytes(whole[:start] + bytes(len(whole[start:start + 4096])) + whole[start + 4096:])
    elif kind == "flip":
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1:])
    else:
        file.write_bytes(whole[:len(whole) - {"cut4k": 4096, "cut64k": 65536, "half": len(whole) // 2}[kind]])
    return f"{kind} at {at} of {len(whole)}"


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command of bios."""
    words = shlex.split(os.environ.get("BIOS_COMMAND", str(ROOT / "bios")))
    return subprocess.run([*words, *arguments], capture_output=True, text=True, timeout=120, check=False)


def ask(running: Server, path: str, body: object = None) -> Tuple[int, Any]:
    """Status and JSON of an endpoint."""
    status, text = page(running, "/api/v1" + path, body)
    return status, json.loads(text)


def serves(running: Server) -> bool:
    """Waits until the launched server is ready (true) or has ended (false)."""
    assert running.process is not None
    try:
        running.await_ready()
        return True
    except SystemExit:
        if running.process.poll() is None:
            raise
        return False


def next_step(running: Server, run: str, seq: int) -> Tuple[Optional[str], Any]:
    """The error code, or the result, of one more step of a run."""
    body = {"model_id": run, "seq_id": seq, "forward_backward_input": {"loss_fn": "cross_entropy", "data": [
        datum.to_wire() for datum in batch(77)]}}
    status, answer = ask(running, "/forward_backward", body)
    if status != 200:
        return answer["error"], answer
    while True:
        status, result = ask(running, "/retrieve_future", {"request_id": answer["request_id"]})
        if status != 408 and result.get("type") != "try_again":
            return result.get("code"), result


def places(seed: int, count: int) -> None:
    """Damaged places of the embedded journal."""
    place = Path(tempfile.mkdtemp(prefix="bios-damage-"))
    (place / "few.conf").write_text(JOURNAL_CONFIG)
    running = Server(place / "whole", arguments=["--config", str(place / "few.conf")])
    running.log = place / "server.log"
    try:
        running.start()
        service = running.client()
        runs, requests = [], []
        for one in range(3):
            client = service.create_lora_training_client(base_model=NAME, rank=4, seed=seed + one)
            futures = train(client, range(6 + one), seed + one)
            results(futures)
            runs.append(client.model_id)
            requests.append([future.request_id for future in futures])
        running.kill()
        shutil.copytree(running.data, place / "copy")
        running.start()
        wanted = [[ask(running, "/retrieve_future", {"request_id": r}) for r in of] for of in requests]
        steps = [next_step(running, run, 1000) for run in runs]
        running.kill()
        chance = random.Random(seed)
        # The longest input of the last step of the first run, as the journal stores it.
        last = max((datum.model_input.to_ints() for datum in batch(seed * 1000 + 5)), key=len)
        event = struct.pack(f"<{len(last)}i", *last)
        kinds = ["event", "half", "missing", "flip", "cut4k", "page", "cut64k", "flip", "empty", "flip", "flip"]
        for number in range(count):
            kind = kinds[number % len(kinds)]
            damaged = one_place(running, place, kind, chance, event, runs, requests, wanted, steps)
            holds("one damaged event damages one run", kind != "event" or damaged == 1)
    except BaseException:
        sys.stderr.write(f"---- end of the server's log ----\n{running.tail()}\n")
        raise
    finally:
        running.stop()
        shutil.rmtree(place, ignore_errors=True)


def one_place(running: Server, place: Path, kind: str, chance: random.Random, event: bytes, runs: List[str],
              requests: List[List[str]], wanted: List[Any], steps: List[Any]) -> int:
    """Damages a copy of the journal, starts, restores and starts again. Returns how many runs answered that they are
    damaged."""
    running.data = place / "damaged"
    shutil.rmtree(running.data, ignore_errors=True)
    shutil.copytree(place / "copy", running.data)
    how = damage(running.data / "journal" / "journal.mv.db", kind, chance, event)
    checked = command("fsck", "--data", str(running.data), "--json")
    holds(f"{how}: fsck ends with {checked.returncode}", checked.returncode in (0, 1))
    running.log.write_bytes(b"")
    running.launch()
    damaged = 0
    if serves(running):
        damaged = verify(running, how, runs, requests, wanted, steps, False)
        lines = running.log.read_text(errors="replace").count("\n")
        holds(f"{how}: served, {damaged} runs damaged, {lines} lines of log", lines < PLACE_LOG_LINES)
        running.kill()
        if not damaged:
            return 0
    else:
        said = running.log.read_text(errors="replace")
        named = any(run in said for run in runs) or "cannot be read" in said or "/sharding/" in said
        holds(f"{how}: refused, and says why", named and "bios restore" in said and checked.returncode == 1)
    restored = command("restore", "--data", str(running.data))
    accept = restored.returncode != 0
    print(f"  {(restored.stdout + restored.stderr).strip()[:1500]}", flush=True)
    running.arguments.extend(["--accept-loss"] if accept else [])
    try:
        running.start()
    finally:
        if accept:
            running.arguments.pop()
    lost = verify(running, how, runs, requests, wanted, steps, True)
    running.kill()
    holds(f"{how}: {'started without it' if accept else 'restored'}, {lost} runs lost something", True)
    return damaged


def verify(running: Server, how: str, runs: List[str], requests: List[List[str]], wanted: List[Any],
           steps: List[Any], given_up: bool) -> int:
    """Compares each run with what it was. Returns how many say that they are not that."""
    others = 0
    for run, of, before, step in zip(runs, requests, wanted, steps):
        code, after = next_step(running, run, 1000)
        if code is None and after == step[1]:
            now = [ask(running, "/retrieve_future", {"request_id": r}) for r in of]
            if now == before:
                continue
            raise SystemExit(f"✗ {how}: other results of {run}")
        others += 1
        allowed = ("data_lost", "not_found") if given_up else ("run_damaged",)
        if code not in allowed:
            raise SystemExit(f"✗ {how}: {run} answers {code}: {str(after)[:300]}; before {str(step[1])[:300]}")
        if code == "data_lost":
            history = ask(running, f"/training_runs/{run}/history")[1]["history"]
            holds(f"{how}: {run} records what was given up", any(entry["kind"] == "data_lost" for entry in history))
    return others


def can_mount() -> bool:
    """Whether a separate file system can be mounted here: in a namespace, as root."""
    test = 'mount -t tmpfs -o size=1m none "$0"'
    with tempfile.TemporaryDirectory() as folder:
        return bool(shutil.which("unshare")) and subprocess.run(
            ["unshare", "-m", "sh", "-c", test, folder], stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="blob,blobs_full,journal_full,frozen")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--places", type=int, default=10, help="how many places of the journal")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if any(part.endswith("_full") for part in parts) and NAMESPACE not in os.environ:
        if can_mount():
            os.environ[NAMESPACE] = "1"
            os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])
        log("no disk of its own can be mounted here (no root, or no unshare): the full disks are left out")
        parts = [part for part in parts if not part.endswith("_full")]
    for part in parts:
        began = time.monotonic()
        log(f"{part} ...")
        if part == "blob":
            blob(arguments.seed)
        elif part == "frozen":
            frozen(arguments.seed)
        elif part == "places":
            places(arguments.seed, arguments.places)
        else:
            full(arguments.seed, part == "journal_full")
        log(f"{part}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
