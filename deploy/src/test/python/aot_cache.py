"""Java's ahead-of-time cache, as the launcher uses it: a server maps it; with one that is cut off, or none, it serves as well, and
says nothing of it.

Needs the cache: `./bios aot-cache`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness import NAME, ROOT, batch, holds, server
from bios import types

CACHE = ROOT / "deploy" / "target" / "bios.aot"


def serves(what: str, cache: str, mapped: bool) -> None:
    """A server that is started with this cache."""
    os.environ["BIOS_AOT_CACHE"] = cache
    with server() as running:
        assert running.process is not None
        maps = Path(f"/proc/{running.process.pid}/maps").read_text()
        holds(f"{what}: it is {'' if mapped else 'not '}mapped", (bool(cache) and cache in maps) == mapped)
        run = running.client().create_lora_training_client(base_model=NAME, rank=4)
        run.forward_backward(batch(1, sequences=1, longest=16), "cross_entropy")
        run.optim_step(types.AdamParams(learning_rate=1e-4)).result()
        holds(f"{what}: the log says nothing of it", "[aot" not in running.tail() and "[cds" not in running.tail())


def main() -> None:
    os.environ["BIOS_COMMAND"] = str(ROOT / "bios")
    holds(f"{CACHE} is there", CACHE.exists())
    with tempfile.TemporaryDirectory(prefix="bios-check-") as folder:
        serves("a whole cache", str(CACHE), mapped=True)
        cut = Path(folder) / "cut.aot"
        shutil.copy(CACHE, cut)
        os.truncate(cut, CACHE.stat().st_size // 2)
        serves("a cache that is cut off", str(cut), mapped=False)
        serves("no cache", "", mapped=False)


if __name__ == "__main__":
    main()
