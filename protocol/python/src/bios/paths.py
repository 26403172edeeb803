"""Checkpoint names and paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from .errors import InvalidArgumentError, InvalidPathError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}", re.ASCII)
_KINDS = ("weights", "sampler_weights")
_EXTERNAL = "external_weights"  # what Tinker's package calls sampler weights that are fetched file by file


def checkpoint_name(name: object, field: str = "name") -> str:
    """``name`` if it is a valid checkpoint name; raises :class:`InvalidArgumentError` otherwise."""
    if not isinstance(name, str):
        raise InvalidArgumentError(field, f"expected a string, got {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            field,
            f"{name!r} is not a checkpoint name; use 1 to 128 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit",
        )
    if name in _KINDS:
        raise InvalidArgumentError(field, f"{name!r} is reserved; choose another")
    return name


@dataclass(frozen=True)
class CheckpointPath:
    """The path of a checkpoint.

    ``run``: the run's id; ``kind``: ``weights`` (a training state), ``sampler_weights``, or None when a two-part
    path left it open: then the training state of that name, or else the sampler weights; ``name``: its name
    within the run.
    """

    run: str
    kind: Optional[str]
    name: str

    @classmethod
    def parse(cls, path: object) -> "CheckpointPath":
        """Parses ``bios://<run>/<name>``, ``bios://<run>/weights/<name>``, ``bios://<run>/sampler_weights/<name>``,
        and the same with ``tinker://``; :class:`InvalidPathError` for anything else."""
        if not isinstance(path, str):
            raise InvalidPathError(path, f"it is a {type(path).__name__}, not a string")
        for scheme in ("bios://", "tinker://"):
            if path.startswith(scheme):
                parts = path[len(scheme):].split("/")
                break
        else:
            raise InvalidPathError(path)
        if len(parts) == 3 and parts[1] == _EXTERNAL:
            parts[1] = "sampler_weights"
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[1] not in _KINDS):
            raise InvalidPathError(path)
        if not _RUN.fullmatch(parts[0]):
            raise InvalidPathError(path, f"{parts[0]!r} is not the id of a run")
        try:
            name = checkpoint_name(parts[-1])
        except InvalidArgumentError as e:
            raise InvalidPathError(path, str(e)) from None
        return cls(parts[0], parts[1] if len(parts) == 3 else None, name)

    def __str__(self) -> str:
        return "/".join(["bios:/", self.run] + ([self.kind] if self.kind == "sampler_weights" else []) + [self.name])
