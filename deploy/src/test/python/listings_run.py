"""Runs every listing of the users' page, as written, against a server of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from harness import MODEL, ROOT, holds, server

NAMES = ["usf-mini", "usf-finance", "usf-healthcare", "usf-code", "usf-conversation"]


def main() -> None:
    with server(models={f"ultrasafe/{name}": MODEL for name in NAMES}) as running:
        script = ROOT / "protocol" / "python" / "tests" / "listings.py"
        status = subprocess.run(
            [sys.executable, str(script), "--base-url", running.url, "--base-model", "ultrasafe/usf-mini"],
            env={**os.environ, "BIOS_EXAMPLE_FOLDER": str(MODEL)}).returncode
        holds("every listing ran", status == 0)


if __name__ == "__main__":
    main()
