"""Where the server is: from arguments, the environment, and the file that ``bios login`` writes."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Dict, Optional, Tuple

from .errors import BiosError

DEFAULT_BASE_URL = "http://127.0.0.1:8400"


def path() -> str:
    """The file: ``BIOS_CONFIG``, else ``bios/config.json`` in the user's folder for settings."""
    return os.environ.get("BIOS_CONFIG") or os.path.join(
        os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config"), "bios", "config.json")


def read() -> Dict[str, str]:
    """``base_url`` and ``api_key`` as far as they were saved."""
    try:
        with open(path(), encoding="utf-8") as file:
            found = json.load(file)
    except OSError:
        return {}
    except ValueError as e:
        raise BiosError(f"{path()} is not JSON ({e}); mend it, or write it anew with 'bios login'") from None
    known = found if isinstance(found, dict) else {}
    return {name: known[name] for name in ("base_url", "api_key") if isinstance(known.get(name), str) and known[name]}


def write(values: Dict[str, str]) -> str:
    """Replaces the file, which only its owner can read; returns its name."""
    name = path()
    os.makedirs(os.path.dirname(os.path.abspath(name)), mode=0o700, exist_ok=True)
    number, draft = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(name)))  # readable by its owner alone
    with os.fdopen(number, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.write("\n")
    os.replace(draft, name)
    return name


def server(base_url: Optional[str], api_key: Optional[str]) -> Tuple[str, Optional[str]]:
    """Address and key: the arguments, else the environment, else the file. The file's key is only for the file's address."""
    url = base_url or os.environ.get("BIOS_BASE_URL")
    key = api_key if api_key is not None else os.environ.get("BIOS_API_KEY")
    if url is None or url == "" or key is None:
        saved = read()
        url = url or saved.get("base_url") or DEFAULT_BASE_URL
        if key is None and _plain(url) == _plain(saved.get("base_url", "")):
            key = saved.get("api_key")
    return url, key or None


def _plain(url: str) -> str:
    return ",".join(address.strip().rstrip("/") for address in url.split(","))
