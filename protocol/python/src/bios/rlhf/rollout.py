"""Prompts with their completions, and the data that training makes of them."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Union

from ..data import next_token_datum
from ..errors import InvalidArgumentError
from ..futures import Future
from ..sampling import SamplingClient
from ..tokenizer import encoded
from ..training import TrainingClient
from ..types import Datum, ForwardBackwardOutput, ModelInput, StopReason

#: How long the checkpoint of a trainer's own reference lives: 30 days.
REFERENCE_TTL_SECONDS = 30 * 24 * 3600

#: A text, token ids, or a :class:`ModelInput`.
Text = Union[str, Sequence[int], ModelInput]


@dataclass(frozen=True)
class Rollout:
    """A completion that was sampled from the weights in training.

    ``prompt``: its tokens; ``tokens``: the completion's, with the one that ended it; ``logprobs``: the log-probability of each
    of these under the model itself, whatever the temperature; ``group``: the number of its prompt in the call that
    sampled it; ``stop_reason``: ``stop`` or ``length``.
    """

    prompt: ModelInput
    tokens: List[int]
    logprobs: List[float]
    group: int
    stop_reason: Optional[StopReason] = None
    tokenizer: Any = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The completion as text, without special tokens."""
        return decode(self.tokenizer, self.tokens)

    @property
    def prompt_text(self) -> str:
        """The prompt as text, without special tokens."""
        return decode(self.tokenizer, self.prompt.to_ints())


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, of which the first is preferred; each a text, token ids or a :class:`ModelInput`."""

    prompt: Text
    chosen: Text
    rejected: Text


def groups_of(rollouts: Sequence[Rollout]) -> Dict[int, List[int]]:
    """The places of the rollouts of each group."""
    groups: Dict[int, List[int]] = {}
    for i, rollout in enumerate(rollouts):
        groups.setdefault(rollout.group, []).append(i)
    return groups


def decode(tokenizer: Any, tokens: List[int]) -> str:
    """The text of tokens."""
    if tokenizer is None:
        raise InvalidArgumentError("tokenizer", "this rollout was made without a tokenizer; its text is not known")
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def tokens_of(value: Any, at: str, tokenizer: Any) -> List[int]:
    """The tokens of a text, token ids or a model input; not empty."""
    found = encoded(tokenizer, value) if isinstance(value, str) else ModelInput.of(value, at).to_ints()
    if not found:
        raise InvalidArgumentError(at, "holds no tokens")
    return found


def completion_datum(prompt: List[int], completion: List[int], **inputs: List[float]) -> Datum:
    """The datum that predicts a completion after a prompt: N = prompt + completion - 1 positions.

    :param inputs: numbers for each token of the completion; 0 for the tokens of the prompt
    """
    before = [0.0] * (len(prompt) - 1)
    return next_token_datum(prompt + completion, **{name: before + values for name, values in inputs.items()})


def last_logprobs(output: ForwardBackwardOutput, index: int, length: int) -> List[float]:
    """The log-probabilities of the last tokens of a datum."""
    return [float(p) for p in output.loss_fn_outputs[index]["logprobs"].to_list()[-length:]]


def scored(client: SamplingClient, prompt: List[int], completion: List[int]) -> Future[List[Optional[float]]]:
    """The log-probabilities of prompt and completion under the weights of a sampling client."""
    return client.compute_logprobs(prompt + completion)


def completion_logprobs(found: List[Optional[float]], length: int) -> List[float]:
    """The completion's part of what :func:`scored` gives."""
    return [0.0 if p is None else float(p) for p in found[-length:]]


def reference_of(client: TrainingClient, reference: Optional[SamplingClient]) -> SamplingClient:
    """The weights that training is compared with: those given, or else a snapshot of the run's weights now."""
    if reference is not None:
        if not isinstance(reference, SamplingClient):
            raise InvalidArgumentError("reference", f"expected a SamplingClient, got {type(reference).__name__}")
        return reference
    return client.save_weights_and_get_sampling_client()


def kept_reference(client: TrainingClient) -> SamplingClient:
    """The run's weights now as a reference for a long training, in which a snapshot without a name would expire."""
    name = f"reference-{secrets.token_hex(4)}"
    saved = client.save_weights_for_sampler(name, ttl_seconds=REFERENCE_TTL_SECONDS).result()
    return client.create_sampling_client(saved.path)


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of all values."""
    middle = mean(values)
    return math.sqrt(mean([(v - middle) ** 2 for v in values]))
