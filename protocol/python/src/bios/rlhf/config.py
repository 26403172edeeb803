"""Settings of the trainers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Type, TypeVar, Union

from ..errors import InvalidArgumentError
from ..types import AdamParams, LossFnType, SamplingParams

C = TypeVar("C")


class _StepSettings:
    """What the settings of all trainers have: those of an optimizer step."""

    learning_rate: float
    grad_clip_norm: float

    def adam(self) -> AdamParams:
        """The settings of an optimizer step."""
        return AdamParams(learning_rate=self.learning_rate, grad_clip_norm=self.grad_clip_norm)


@dataclass(frozen=True)
class PPOConfig(_StepSettings):
    """Settings of :class:`bios.rlhf.PPOTrainer`.

    ``batch_size``: prompts of an iteration of ``train``; ``group_size``: completions of each prompt;
    ``max_tokens`` (fewer where the model's context ends), ``temperature``, ``top_p``, ``top_k``, ``stop``: how they are
    sampled; ``seed``: makes an iteration repeatable (None: random).

    ``learning_rate``, ``grad_clip_norm``: of each optimizer step; ``num_substeps``: optimizer steps of an iteration, each
    over a part of the rollouts of its own; ``num_epochs``: times that they are gone through.

    ``loss_fn``: ``ppo``, ``cispo``, ``importance_sampling`` or ``dro``; ``clip``: of ppo and cispo, ratios are clipped to
    1 - clip and 1 + clip.

    ``advantages``: ``group``: a completion's reward less the mean of its group, for each of its tokens; ``gae``: generalized
    advantage estimation with ``gamma`` and ``lam`` over the tokens' rewards and values. ``normalize``: divides them by
    their standard deviation over the batch.

    ``kl_coef``: weight of the penalty for the difference to the reference model, for each token; 0: none, and the
    reference is not asked.

    ``lora_rank``: of the run that ``create_session`` makes.
    """

    batch_size: int = 32
    group_size: int = 4
    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: Union[str, List[str], List[int], None] = None
    seed: Optional[int] = None
    learning_rate: float = 2e-5
    grad_clip_norm: float = 0.0
    num_substeps: int = 1
    num_epochs: int = 1
    loss_fn: LossFnType = "ppo"
    clip: float = 0.2
    advantages: str = "group"
    gamma: float = 1.0
    lam: float = 0.95
    normalize: bool = False
    kl_coef: float = 0.0
    lora_rank: int = 8

    def __post_init__(self) -> None:
        for name in ("batch_size", "group_size", "max_tokens", "num_substeps", "num_epochs", "lora_rank"):
            whole(getattr(self, name), name, 1)
        if self.seed is not None:
            whole(self.seed, "seed", 0)
        number(self.clip, "clip", 0.0, 1.0)
        number(self.gamma, "gamma", 0.0, 1.0)
        number(self.lam, "lam", 0.0, 1.0)
        number(self.kl_coef, "kl_coef", 0.0)
        one_of(self.loss_fn, "loss_fn", ("ppo", "cispo", "importance_sampling", "dro"))
        one_of(self.advantages, "advantages", ("group", "gae"))
        self.sampling(0, self.max_tokens)
        self.adam()

    def sampling(self, seed: Optional[int], room: int) -> SamplingParams:
        """How completions are sampled, with a seed, where the context has room for this many tokens."""
        return SamplingParams(max_tokens=max(1, min(self.max_tokens, room)), temperature=self.temperature, top_p=self.top_p,
                              top_k=self.top_k, stop=self.stop, seed=seed)

    def loss_config(self) -> Optional[Dict[str, float]]:
        """The settings of the loss."""
        if self.loss_fn in ("ppo", "cispo"):
            return {"clip_low_threshold": 1.0 - self.clip, "clip_high_threshold": 1.0 + self.clip}
        return None


@dataclass(frozen=True)
class DPOConfig(_StepSettings):
    """Settings of :class:`bios.rlhf.DPOTrainer`: ``beta``: how strongly the reference holds the weights back;
    ``learning_rate`` and ``grad_clip_norm`` of a step; ``label_smoothing``: share of the pairs that are taken to be the
    wrong way round."""

    beta: float = 0.1
    learning_rate: float = 1e-5
    grad_clip_norm: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        number(self.beta, "beta", 0.0)
        number(self.label_smoothing, "label_smoothing", 0.0, 0.5)
        self.adam()


@dataclass(frozen=True)
class RewardConfig(_StepSettings):
    """Settings of :class:`bios.rlhf.RewardModel`: ``question`` is put behind a completion; the score is the difference of the
    log-probabilities of ``good`` and ``bad`` as the next token."""

    question: str = "\n\nIs the answer above good? Yes or No: "
    good: str = "Yes"
    bad: str = "No"
    learning_rate: float = 1e-4
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("good", "bad"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InvalidArgumentError(name, f"expected a text, got {getattr(self, name)!r}")
        self.adam()


def config_of(kind: Type[C], given: Union[C, Mapping[str, Any], None]) -> C:
    """Settings from settings, a dict of some of them, or None for the defaults; unknown names are refused."""
    if given is None:
        return kind()
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InvalidArgumentError("config", f"expected {kind.__name__} or a dict, got {type(given).__name__}")
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise InvalidArgumentError(f"config.{name}", f"is not a setting; there are {', '.join(known)}")
    return kind(**given)


def whole(value: Any, name: str, low: int) -> int:
    """Checks an integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InvalidArgumentError(name, f"expected an integer of at least {low}, got {value!r}")
    return value


def number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Checks a finite number."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or not low <= found <= high:
        bounds = "" if low == -math.inf else f" of at least {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
        raise InvalidArgumentError(name, f"expected a finite number{bounds}, got {value!r}")
    return found


def one_of(value: Any, name: str, known: "tuple[str, ...]") -> None:
    """Checks a name."""
    if value not in known:
        raise InvalidArgumentError(name, f"expected one of {', '.join(known)}, got {value!r}")
