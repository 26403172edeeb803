"""Metrics of a training program, written where its user looks at them.

    from bios.log import MetricLog

    with MetricLog("runs/first", config={"learning_rate": 1e-4}) as log:
        for batch in batches:
            result = training.train(batch)
            log.write(result.step, {"loss": result.loss, **result.metrics})

Always JSON lines in ``metrics.jsonl`` of the folder; with ``to=`` also TensorBoard, Weights & Biases or Trackio, if they are
installed.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import InvalidArgumentError, MissingExtraError
from .types import plain_number

#: name -> (package to import, package to install)
_WRITERS: Dict[str, Tuple[str, str]] = {
    "tensorboard": ("torch.utils.tensorboard", "tensorboard torch"), "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio")}


class MetricLog:
    """Writes metrics of steps.

    ``folder``: is made; ``metrics.jsonl`` in it is appended to, and ``config.json`` holds ``config``. ``to``: more places, of
    ``tensorboard``, ``wandb`` and ``trackio``; ``project`` and ``name``: of the run there. Raises
    :class:`bios.MissingExtraError` at once if a package is missing.
    """

    def __init__(self, folder: Union[str, "os.PathLike[str]"], *, config: Optional[Mapping[str, Any]] = None,
                 to: Sequence[str] = (), project: str = "bios", name: Optional[str] = None) -> None:
        self.folder = os.fspath(folder)
        wanted = [to] if isinstance(to, str) else list(to)
        for place in wanted:
            if place not in _WRITERS:
                raise InvalidArgumentError("to", f"expected {', '.join(_WRITERS)}, got {place!r}")
        modules = {place: _module(place) for place in wanted}
        os.makedirs(self.folder, exist_ok=True)
        if config is not None:
            with open(os.path.join(self.folder, "config.json"), "w", encoding="utf-8") as file:
                json.dump(dict(config), file, indent=2, default=str)
        self._file = open(os.path.join(self.folder, "metrics.jsonl"), "a", encoding="utf-8")
        self._writers: List[Tuple[str, Any]] = []
        for place, module in modules.items():
            if place == "tensorboard":
                self._writers.append((place, module.SummaryWriter(self.folder)))
            else:
                run = module.init(project=project, name=name or os.path.basename(os.path.abspath(self.folder)),
                                  config=dict(config or {}))
                self._writers.append((place, run if place == "wandb" else module))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the numbers of a step, Python's or numpy's, or torch tensors of one number; numbers that are not finite become
        null in the file. Texts and other values go into the file only."""
        metrics = {name: plain_number(value) for name, value in metrics.items()}
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        row = {k: (numbers[k] if math.isfinite(numbers[k]) else None) if k in numbers else v for k, v in metrics.items()}
        self._file.write(json.dumps({"step": int(step), "time": round(time.time(), 3), **row}, default=str) + "\n")
        self._file.flush()
        for place, writer in self._writers:
            if place == "tensorboard":
                for name, value in numbers.items():
                    writer.add_scalar(name, value, step)
            else:
                writer.log(numbers, step=step)

    def close(self) -> None:
        """Ends the file and the runs elsewhere."""
        self._file.close()
        for place, writer in self._writers:
            writer.close() if place == "tensorboard" else writer.finish()
        self._writers = []

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MetricLog({self.folder!r})"


def _module(place: str) -> Any:
    import importlib

    module, install = _WRITERS[place]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(f"writing to {place} needs a package: pip install {install}") from None
