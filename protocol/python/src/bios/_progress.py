"""Progress on stderr: a bar for each transfer, and a line for a long wait.

Shown on a terminal; elsewhere only if it is asked for (``progress=True``, or ``BIOS_PROGRESS=1``); never with
``BIOS_PROGRESS=0``. Bars are tqdm's where that is installed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional

FIRST_SECONDS = 1.0
EVERY_SECONDS = 0.5
PLAIN_EVERY_SECONDS = 5.0

_LOCK = threading.RLock()
_shown = 0           # columns of the line that a wait has drawn
_drawing: Any = None  # the wait that draws: one at a time


def wanted(asked: Optional[bool] = None) -> bool:
    """Whether to show progress: by the argument, else by ``BIOS_PROGRESS``, else on a terminal only."""
    told = os.environ.get("BIOS_PROGRESS")
    if told == "0" or sys.stderr is None:
        return False
    return asked if asked is not None else told == "1" or on_terminal()


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


def line(text: str) -> None:
    """Writes a line to stderr, in place of what a wait has drawn."""
    with _LOCK:
        _erase()
        print(text, file=sys.stderr, flush=True)


def _erase() -> None:
    global _shown
    if _shown:
        sys.stderr.write("\r" + " " * _shown + "\r")
        sys.stderr.flush()
        _shown = 0


def _draw(text: str) -> None:
    global _shown
    with _LOCK:
        text = text[:100]
        sys.stderr.write("\r" + text + " " * max(0, _shown - len(text)))
        sys.stderr.flush()
        _shown = len(text)


def _foreign_bar() -> bool:
    """Whether the program shows a bar of its own, into which nothing must be written."""
    bars = sys.modules.get("tqdm")
    return bool(bars is not None and len(getattr(getattr(bars, "tqdm", None), "_instances", ())))


@contextmanager
def waiting(what: Callable[[], str]) -> Iterator[None]:
    """Says each half second what is waited for, once the wait has lasted a second; on a terminal only."""
    if not (on_terminal() and wanted()):
        yield
        return
    over = threading.Event()

    def show() -> None:
        global _drawing
        if over.wait(FIRST_SECONDS):
            return
        while True:
            with _LOCK:
                if _drawing is None:
                    _drawing = over
                if _drawing is over and not over.is_set() and not _foreign_bar():
                    _draw(f"bios: {what()}")
            if over.wait(EVERY_SECONDS):
                return

    threading.Thread(target=show, name="bios-progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        _end(over)


def _end(wait: Any) -> None:
    global _drawing
    with _LOCK:
        if _drawing is wait:
            _erase()
            _drawing = None


class Bar:
    """The progress of a transfer: tqdm's bar, or a plain line."""

    def __init__(self, what: str, asked: Optional[bool] = None, total: Optional[int] = None, done: int = 0) -> None:
        self._on = wanted(asked)
        self._what, self._total, self._done = what, total, done
        self._began = self._told = time.monotonic()
        self._first = done
        self._bar: Any = None
        if self._on:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, initial=done, desc=what, unit="B", unit_scale=True, file=sys.stderr)

    def add(self, count: int) -> None:
        """Adds transferred bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._on:
            now = time.monotonic()
            if now - self._told >= (EVERY_SECONDS if on_terminal() else PLAIN_EVERY_SECONDS):
                self._told = now
                _draw(self._text()) if on_terminal() else line(self._text())

    def _text(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        of = f" of {size(self._total)}" if self._total else ""
        return f"{self._what}: {size(self._done)}{of}, {size((self._done - self._first) / seconds)}/s"

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
        elif self._on:
            line(self._text())
        self._on, self._bar = False, None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def size(count: Optional[float]) -> str:
    """A number of bytes with a unit."""
    number = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return ""
