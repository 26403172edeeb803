"""Training on preferences without rewards."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .._threads import on_thread
from ..errors import InvalidArgumentError
from ..sampling import SamplingClient
from ..training import TrainingClient
from .config import DPOConfig, config_of
from .preference import logistic, pairs_of, softplus
from .rollout import Pair, completion_datum, completion_logprobs, last_logprobs, mean, reference_of, scored


class DPOTrainer:
    """Direct preference optimization (Rafailov et al., 2023): makes preferred completions likelier than rejected ones, as seen
    from a reference model.

    The loss of a pair is -log sigmoid(beta x margin), where the margin is how much more the weights have moved towards the
    chosen completion than towards the rejected one, in nats against the reference. An update is a pass without gradient,
    a pass with it and a step; it needs no torch.
    """

    def __init__(self, client: TrainingClient, config: Union[DPOConfig, Mapping[str, Any], None] = None, *,
                 reference: Optional[SamplingClient] = None, tokenizer: Any = None) -> None:
        if not isinstance(client, TrainingClient):
            raise InvalidArgumentError("client", f"expected a TrainingClient, got {type(client).__name__}")
        self.client, self.config = client, config_of(DPOConfig, config)
        self._tokenizer = tokenizer if tokenizer is not None else client.get_tokenizer()
        self._reference = reference_of(client, reference)

    @classmethod
    def from_training_client(cls, client: TrainingClient, config: Union[DPOConfig, Mapping[str, Any], None] = None, *,
                             reference: Optional[SamplingClient] = None) -> "DPOTrainer":
        """A trainer of a run. ``config``: a :class:`DPOConfig` or a dict of some of its settings; ``reference``: the weights that
        hold training back (default: those of the run now)."""
        return cls(client, config, reference=reference)

    def update(self, pairs: Sequence[Pair]) -> Dict[str, float]:
        """One optimizer step on pairs. Returns, as they were before the step, ``loss`` (mean), ``accuracy`` (share of pairs
        whose margin is above 0), ``margin``, ``chosen_reward`` and ``rejected_reward`` (beta x log-ratio), and ``grad_norm``
        and ``step``."""
        beta, smoothing = self.config.beta, self.config.label_smoothing
        texts = [text for both in pairs_of(pairs, self._tokenizer) for text in both]
        moved = self._moved(texts)
        weights: List[float] = []
        losses: List[float] = []
        margins = [beta * (moved[i] - moved[i + 1]) for i in range(0, len(moved), 2)]
        for margin in margins:
            losses.append((1 - smoothing) * softplus(-margin) + smoothing * softplus(margin))
            slope = beta * ((1 - smoothing) * logistic(-margin) - smoothing * logistic(margin)) / len(margins)
            weights += [slope, -slope]
        data = [completion_datum(prompt, completion, weights=[weight] * len(completion))
                for (prompt, completion), weight in zip(texts, weights)]
        passed = self.client.forward_backward(data, "cross_entropy")
        stepped = self.client.optim_step(self.config.adam()).result()
        passed.result()
        return {"loss": mean(losses), "accuracy": mean([float(m > 0) for m in margins]), "margin": mean(margins),
                "chosen_reward": beta * mean(moved[0::2]), "rejected_reward": beta * mean(moved[1::2]),
                "grad_norm": float((stepped.metrics or {}).get("grad_norm", math.nan)),
                "step": float(stepped.step or 0)}

    async def update_async(self, pairs: Sequence[Pair]) -> Dict[str, float]:
        """``update`` for asyncio."""
        return await on_thread(self.update, pairs)

    def _moved(self, texts: List[Tuple[List[int], List[int]]]) -> List[float]:
        """log p - log p_reference of each completion."""
        asked = [scored(self._reference, prompt, completion) for prompt, completion in texts]
        data = [completion_datum(prompt, completion, weights=[1.0] * len(completion)) for prompt, completion in texts]
        output = self.client.forward(data, "cross_entropy").result()
        now = [sum(last_logprobs(output, i, len(completion))) for i, (_, completion) in enumerate(texts)]
        before = [sum(completion_logprobs(future.result(), len(completion)))
                  for future, (_, completion) in zip(asked, texts)]
        return [a - b for a, b in zip(now, before)]

    def __repr__(self) -> str:
        return f"DPOTrainer({self.client.model_id})"
