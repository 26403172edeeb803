"""Rewards from preferences."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple, Union

from .._threads import on_thread
from ..errors import InvalidArgumentError
from ..sampling import SamplingClient
from ..training import TrainingClient
from ..types import Datum
from .config import RewardConfig, config_of, number
from .rollout import Pair, Rollout, completion_datum, groups_of, last_logprobs, mean, scored, tokens_of

QUESTION = """Which answer to the prompt is better?

Prompt: {prompt}

Answer A: {a}

Answer B: {b}

The better answer is """


class Judge:
    """Asks a model which of two completions of a prompt is better, by the probabilities of its answer.

    ``client``: the model's weights; ``template``: the question, with ``{prompt}``, ``{a}`` and ``{b}``; ``a`` and ``b``: the two
    answers, of each the first token counts. Each pair is asked both ways round, so that a liking for the first place
    cancels out.
    """

    def __init__(self, client: SamplingClient, template: str = QUESTION, a: str = "A", b: str = "B",
                 tokenizer: Any = None) -> None:
        if not isinstance(client, SamplingClient):
            raise InvalidArgumentError("client", f"expected a SamplingClient, got {type(client).__name__}")
        for name in ("{prompt}", "{a}", "{b}"):
            if name not in template:
                raise InvalidArgumentError("template", f"lacks {name}")
        self._client, self._template = client, template
        self._tokenizer = tokenizer if tokenizer is not None else client.get_tokenizer()
        self._answers = answers(self._tokenizer, a, b, "a", "b")

    def compare(self, pairs: Sequence[Tuple[Rollout, Rollout]]) -> List[float]:
        """For each pair the probability that its first rollout is the better one, from 0 to 1."""
        asked = []
        for first, second in pairs:
            for a, b in ((first, second), (second, first)):
                question = tokens_of(self._template.format(prompt=first.prompt_text, a=a.text, b=b.text), "template",
                                     self._tokenizer)
                asked.append([scored(self._client, question, [answer]) for answer in self._answers])
        told = [[float(future.result()[-1] or 0.0) for future in both] for both in asked]
        first_wins = [logistic(a - b) for a, b in told]
        return [(first_wins[i] + 1.0 - first_wins[i + 1]) / 2 for i in range(0, len(first_wins), 2)]


#: A :class:`Judge`, or ``fn(first, second)``: the probability that the first of two rollouts of a prompt is better
#: (True and False are 1 and 0).
Preference = Union[Judge, Callable[[Rollout, Rollout], float]]


def win_fractions(rollouts: Sequence[Rollout], preference: Preference) -> List[float]:
    """For each rollout the share of the others of its group that it wins against, from 0 to 1; of a group of one 0.5."""
    groups = groups_of(rollouts)
    pairs = [(i, j) for members in groups.values() for at, i in enumerate(members) for j in members[at + 1:]]
    compared = [(rollouts[i], rollouts[j]) for i, j in pairs]
    if isinstance(preference, Judge):
        shares = preference.compare(compared)
    else:
        shares = [number(float(preference(a, b)), "preference", 0.0, 1.0) for a, b in compared]
    wins = [0.0] * len(rollouts)
    for (i, j), share in zip(pairs, shares):
        wins[i] += share
        wins[j] += 1.0 - share
    sizes = {group: len(members) for group, members in groups.items()}
    return [wins[i] / (sizes[r.group] - 1) if sizes[r.group] > 1 else 0.5 for i, r in enumerate(rollouts)]


class RewardModel:
    """A run that learns to score completions from pairs of which one is preferred (Bradley and Terry).

    The score of a completion is how much likelier the model finds ``good`` than ``bad`` as the answer to ``question``, in nats;
    the probability that one completion is better than another is the logistic function of their scores' difference. The model
    itself is a reward: ``PPOTrainer.from_training_client(client, reward_fn=model)``, or ``model.score(rollouts)`` for
    many at once.
    """

    def __init__(self, client: TrainingClient, config: Union[RewardConfig, Mapping[str, Any], None] = None, *,
                 tokenizer: Any = None) -> None:
        if not isinstance(client, TrainingClient):
            raise InvalidArgumentError("client", f"expected a TrainingClient, got {type(client).__name__}")
        self.client, self.config = client, config_of(RewardConfig, config)
        self._tokenizer = tokenizer if tokenizer is not None else client.get_tokenizer()
        self._question = tokens_of(self.config.question, "question", self._tokenizer) if self.config.question else []
        self._answers = answers(self._tokenizer, self.config.good, self.config.bad, "good", "bad")

    @classmethod
    def from_training_client(cls, client: TrainingClient, config: Union[RewardConfig, Mapping[str, Any], None] = None,
                             ) -> "RewardModel":
        """A reward model of a run; ``config``: a :class:`RewardConfig` or a dict of some of its settings."""
        return cls(client, config)

    def _data(self, prompt: List[int], completion: List[int], weights: Sequence[float] = (1.0, 1.0)) -> List[Datum]:
        """The two datums of a score: the answers ``good`` and ``bad`` after the same tokens."""
        before = prompt + completion + self._question
        return [completion_datum(before, [answer], weights=[weight]) for answer, weight in zip(self._answers, weights)]

    def _scores(self, texts: Sequence[Tuple[List[int], List[int]]]) -> List[float]:
        data = [datum for prompt, completion in texts for datum in self._data(prompt, completion)]
        output = self.client.forward(data, "cross_entropy").result()
        told = [last_logprobs(output, i, 1)[0] for i in range(len(data))]
        return [told[i] - told[i + 1] for i in range(0, len(told), 2)]

    def score(self, rollouts: Sequence[Rollout]) -> List[float]:
        """The scores of rollouts, in nats; the higher, the better."""
        if not rollouts:
            raise InvalidArgumentError("rollouts", "is empty")
        return self._scores([(r.prompt.to_ints(), r.tokens) for r in rollouts])

    def __call__(self, rollout: Rollout) -> float:
        """The score of one rollout."""
        return self.score([rollout])[0]

    def update(self, pairs: Sequence[Pair]) -> Dict[str, float]:
        """One optimizer step on pairs. Returns ``loss`` (mean of -log of the probability of what was preferred), ``accuracy``
        and ``margin`` before the step, and ``grad_norm`` and ``step``."""
        texts = pairs_of(pairs, self._tokenizer)
        scores = self._scores([text for both in texts for text in both])
        margins = [scores[i] - scores[i + 1] for i in range(0, len(scores), 2)]
        data: List[Datum] = []
        for (chosen, rejected), margin in zip(texts, margins):
            slope = logistic(-margin) / len(texts)
            data += self._data(*chosen, (slope, -slope)) + self._data(*rejected, (-slope, slope))
        passed = self.client.forward_backward(data, "cross_entropy")
        stepped = self.client.optim_step(self.config.adam()).result()
        passed.result()
        return {"loss": mean([softplus(-m) for m in margins]), "accuracy": mean([float(m > 0) for m in margins]),
                "margin": mean(margins), "grad_norm": float((stepped.metrics or {}).get("grad_norm", math.nan)),
                "step": float(stepped.step or 0)}

    async def update_async(self, pairs: Sequence[Pair]) -> Dict[str, float]:
        """``update`` for asyncio."""
        return await on_thread(self.update, pairs)

    def __repr__(self) -> str:
        return f"RewardModel({self.client.model_id})"


def pairs_of(pairs: Sequence[Pair], tokenizer: Any) -> List[Tuple[Tuple[List[int], List[int]], Tuple[List[int], List[int]]]]:
    """The tokens of pairs: (prompt, chosen) and (prompt, rejected) of each."""
    if not pairs:
        raise InvalidArgumentError("pairs", "is empty")
    found = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Pair):
            raise InvalidArgumentError(f"pairs[{i}]", f"expected a Pair, got {type(pair).__name__}")
        prompt = tokens_of(pair.prompt, f"pairs[{i}].prompt", tokenizer)
        found.append(((prompt, tokens_of(pair.chosen, f"pairs[{i}].chosen", tokenizer)),
                      (prompt, tokens_of(pair.rejected, f"pairs[{i}].rejected", tokenizer))))
    return found


def answers(tokenizer: Any, first: str, second: str, name: str, other: str) -> Tuple[int, int]:
    """The first tokens of two answers, which must differ."""
    tokens = tokens_of(first, name, tokenizer)[0], tokens_of(second, other, tokenizer)[0]
    if tokens[0] == tokens[1]:
        raise InvalidArgumentError(name, f"{first!r} and {second!r} begin with the same token; use answers that do not")
    return tokens


def softplus(x: float) -> float:
    """log(1 + e^x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def logistic(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + math.exp(x))
