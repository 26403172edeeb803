"""Runs every Python example of the documentation, and of the package's docstrings, against a server of its own.

The examples of a page run one after another in one namespace, as a reader would type them. Only sizes are changed: counts of
100 and more in `range(...)`, `iterations=`, and the server's address. Docstrings get the names that they leave out from a
prelude. An example that needs a package that is not installed is reported as skipped; `--strict` makes that a failure.
`--url URL` uses a server that runs already, `--only WORD` the pages whose name has the word.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from harness import MODEL, NAME, ROOT, against_server, batch

import bios

MODULES = ("bios", "bios.data", "bios.log", "bios.export", "bios.rlhf")
#: The address that the documentation names.
ADDRESS = "http://127.0.0.1:8400"


def pages() -> List[Tuple[str, str]]:
    """The pages with examples: name, and their Python one after another."""
    found = []
    for file in [ROOT / "README.md", ROOT / "protocol" / "python" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```python\n(.*?)^```$", file.read_text(encoding="utf-8"), re.M | re.S)
        if blocks:
            found.append((str(file.relative_to(ROOT)), "\n".join(blocks)))
    return found


def docstrings() -> List[Tuple[str, str]]:
    """The indented examples of the modules' docstrings."""
    found = []
    for name in MODULES:
        text = inspect.cleandoc(importlib.import_module(name).__doc__ or "")
        code = [line for line in text.split("\n") if line.startswith("    ") or not line]
        found.append((name, textwrap.dedent("\n".join(code)).strip() + "\n"))
    return found


def smaller(source: str, url: str) -> str:
    """The source with small counts and this server's address."""
    source = re.sub(r"range\(([0-9]{3,})\)", "range(10)", source)
    source = re.sub(r"iterations=[0-9]+", "iterations=2", source)
    return source.replace(ADDRESS, url)


def prelude(url: str) -> Dict[str, Any]:
    """What docstrings take for granted."""
    service = bios.ServiceClient(base_url=url)
    training = service.create_lora_training_client(NAME, rank=4)
    rows = [{"messages": [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "It is me."}]}]
    Path("chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    training.forward_backward(batch(1), "cross_entropy")
    training.optim_step()
    path = training.save_state("final").result().path
    return {"service": service, "training": training, "training_client": training, "path": path,
            "batches": [batch(i) for i in range(2)], "score": len}


def outcome(run: Callable[[], None]) -> str:
    """`ok`, `skipped: ...` or the error, with what was printed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            run()
        return "ok"
    except bios.MissingExtraError as missing:
        return f"skipped: {missing}"
    except Exception:
        return f"{printed.getvalue()}\n{traceback.format_exc()}"


def run_page(name: str, source: str, url: str) -> str:
    """The outcome of a page."""
    code = compile(smaller(source, url), name, "exec")
    return outcome(lambda: exec(code, {"__name__": name}))


def run_docstring(name: str, source: str, url: str) -> str:
    """The outcome of a docstring's example."""
    known = prelude(url)
    source = smaller(source, url).replace("bios://<run>/final", known.pop("path")).replace("/models/qwen", str(MODEL))
    if name == "bios.rlhf":
        known["batches"] = [["Once upon a time", "The dog was"]]
    code = compile(source, name, "exec")
    return outcome(lambda: exec(code, {"__name__": name, **known}))


def against(url: str, only: str) -> Dict[str, str]:
    """The outcome of everything that is to run."""
    os.environ["BIOS_BASE_URL"] = url
    found = {}
    for parts, run in ((pages(), run_page), (docstrings(), run_docstring)):
        for name, source in parts:
            if only in name:
                with tempfile.TemporaryDirectory(prefix="bios-docs-") as folder:
                    os.chdir(folder)
                    found[name] = run(name, source, url)
                    os.chdir(ROOT)
                print(f"{name}: {found[name]}", flush=True)
    return found


def main() -> None:
    found = against_server(against)
    skipped = [name for name, what in found.items() if what.startswith("skipped")]
    failed = [name for name, what in found.items() if what != "ok" and (name not in skipped or "--strict" in sys.argv)]
    print(f"{len(found) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
