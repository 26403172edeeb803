"""How results look in a notebook: small tables, and tokens coloured by their log-probability. Everything is escaped."""

from __future__ import annotations

import math
from datetime import datetime
from html import escape
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Tuple

MOST_TOKENS = 2000
MOST_ROWS = 100

_CELL = "style='text-align:left;padding:1px 8px;vertical-align:top'"


def cell(value: Any) -> str:
    """A value as the text of a cell, escaped."""
    if value is None:
        return "&ndash;"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return escape(f"{value:.6g}")
    if isinstance(value, datetime):
        return escape(value.strftime("%Y-%m-%d %H:%M:%S %Z").strip())
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(k))}: {cell(v)}" for k, v in value.items()) or "&ndash;"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(v) for v in value) or "&ndash;"
    return escape(str(value))


def facts(title: str, rows: Iterable[Tuple[str, Any]]) -> str:
    """A table of names and values."""
    lines = "".join(f"<tr><th {_CELL}>{escape(name)}</th><td {_CELL}>{cell(value)}</td></tr>" for name, value in rows)
    return f"<table><caption {_CELL}><b>{escape(title)}</b></caption>{lines}</table>"


def grid(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], total: Optional[int] = None) -> str:
    """A table with one row for each object."""
    head = "".join(f"<th {_CELL}>{escape(name)}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td {_CELL}>{cell(v)}</td>" for v in row) + "</tr>" for row in rows[:MOST_ROWS])
    count = len(rows) if total is None else max(total, len(rows))
    more = f" ({min(len(rows), MOST_ROWS)} of {count})" if count > min(len(rows), MOST_ROWS) else ""
    return (f"<table><caption {_CELL}><b>{escape(title)}</b>{more}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>")


def tokens(ids: Sequence[int], texts: Optional[Sequence[str]], logprobs: Optional[Sequence[Optional[float]]]) -> str:
    """Tokens one after another, from red (unlikely) to green (certain); a tooltip gives id and log-probability."""
    parts: List[str] = []
    for i, token in enumerate(ids[:MOST_TOKENS]):
        text = texts[i] if texts is not None else f"{token} "
        logprob = logprobs[i] if logprobs is not None and i < len(logprobs) else None
        told = f"token {token}"
        style = ""
        if logprob is not None and not math.isnan(logprob):
            chance = math.exp(min(0.0, logprob))
            told += f", log-probability {logprob:.4g} ({100 * chance:.3g} %)"
            style = f" style='background-color:hsla({round(120 * chance)},75%,55%,0.35)'"
        parts.append(f"<span{style} title='{escape(told, quote=True)}'>{_visible(text)}</span>")
    more = f" &hellip; {len(ids) - MOST_TOKENS} more" if len(ids) > MOST_TOKENS else ""
    return f"<div style='white-space:pre-wrap;font-family:monospace;text-align:left'>{''.join(parts)}{more}</div>"


def _visible(text: str) -> str:
    shown = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return escape(shown, quote=True).replace("\n", "&#9166;\n")
