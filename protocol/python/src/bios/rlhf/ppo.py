"""Policy optimization from rewards."""

from __future__ import annotations

import math
import os
import random
import secrets
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from .._threads import on_thread
from .._transport import log
from ..errors import BiosError, InvalidArgumentError
from ..futures import Future
from ..sampling import SamplingClient
from ..service import ServiceClient
from ..training import TrainingClient
from ..types import Datum, ForwardBackwardOutput, ModelInput, OptimStepResponse
from .config import PPOConfig, config_of, number, whole
from .preference import Judge, Preference, win_fractions
from .rollout import (Rollout, Text, completion_datum, completion_logprobs, deviation, groups_of, kept_reference, last_logprobs,
                      mean, reference_of, scored, tokens_of)

#: The context length that is assumed for a model whose length the server does not report, in tokens.
UNKNOWN_CONTEXT = 1 << 30

#: ``fn(rollout) -> reward``: any finite number; higher is better.
RewardFunction = Callable[[Rollout], float]

#: ``fn(rollout) -> values``: for each token of the completion the reward that is expected from there on.
ValueFunction = Callable[[Rollout], Sequence[float]]


class PPOTrainer:
    """Improves a run's weights by rewards: samples completions, scores them, and trains on them.

    Made by :meth:`from_training_client` for a run, or with ``model`` and :meth:`create_session`, which makes the run. An
    iteration is :meth:`collect_rollouts`, :meth:`compute_rewards` and :meth:`ppo_update`; :meth:`step` does all three and
    :meth:`train` repeats them. Every one of them waits for its result; their ``_async`` twins are for asyncio. Rollouts
    are sampled from snapshots that leave no checkpoint.

    :ivar config: the :class:`PPOConfig`
    :ivar client: the :class:`bios.TrainingClient`, for saves and everything else
    """

    def __init__(self, api_key: Optional[str] = None, model: Optional[str] = None, *, base_url: Optional[str] = None,
                 service: Optional[ServiceClient] = None) -> None:
        """A trainer without a run: ``model`` is the base model of the one that :meth:`create_session` makes.

        ``service``: else a new client with ``api_key`` and ``base_url``.
        """
        self._model = model
        self._service: Optional[ServiceClient] = (
            service if service is not None else ServiceClient(api_key=api_key, base_url=base_url))
        self._set(None, PPOConfig())

    def _set(self, client: Optional[TrainingClient], config: PPOConfig, reward_fn: Optional[RewardFunction] = None,
             preference: Optional[Preference] = None, reference: Optional[SamplingClient] = None,
             value_fn: Optional[ValueFunction] = None, tokenizer: Any = None) -> None:
        for name, given in (("reward_fn", reward_fn), ("value_fn", value_fn)):
            if given is not None and not callable(given):
                raise InvalidArgumentError(name, f"expected a function, got {type(given).__name__}")
        self.config, self._client = config, client
        self._reward_fn, self._preference, self._value_fn = reward_fn, preference, value_fn
        self._tokenizer = tokenizer
        self._context: Optional[int] = None
        self._iterations = 0
        self._warned = False
        self._reference: Optional[SamplingClient] = None
        if client is not None and reference is not None:
            self._reference = reference_of(client, reference)
        elif client is not None and config.kl_coef != 0:
            self._reference = kept_reference(client)

    @classmethod
    def from_training_client(cls, client: TrainingClient, config: Union[PPOConfig, Mapping[str, Any], None] = None, *,
                             reward_fn: Optional[RewardFunction] = None, preference: Optional[Preference] = None,
                             reference: Optional[SamplingClient] = None, value_fn: Optional[ValueFunction] = None,
                             tokenizer: Any = None) -> "PPOTrainer":
        """A trainer of a run.

        ``config``: a :class:`PPOConfig`, or a dict of some of its settings. ``reward_fn``: the reward of a rollout.
        ``preference``: instead, which of two rollouts of a prompt is better: a :class:`Judge` or a function; the reward is
        then the share of its group that a rollout wins against. ``reference``: the weights that ``kl_coef`` holds on to
        (default: those of the run now, saved as sampler weights that expire after 30 days). ``value_fn``: the values of
        generalized advantage estimation (default: the mean reward of the group). ``tokenizer``: else the base model's, as
        the server has it.
        """
        if not isinstance(client, TrainingClient):
            raise InvalidArgumentError("client", f"expected a TrainingClient, got {type(client).__name__}")
        made = cls.__new__(cls)
        made._model, made._service = None, None
        made._set(client, config_of(PPOConfig, config), reward_fn, preference, reference, value_fn, tokenizer)
        return made

    def create_session(self, config: Union[PPOConfig, Mapping[str, Any], None] = None, *,
                       reward_fn: Optional[RewardFunction] = None, preference: Optional[Preference] = None,
                       reference: Optional[SamplingClient] = None, value_fn: Optional[ValueFunction] = None,
                       ) -> "PPOTrainer":
        """Creates a run on ``model``, with rank ``lora_rank``, and its trainer. Arguments as in
        :meth:`from_training_client`."""
        if not self._model or self._service is None:
            raise InvalidArgumentError("model", "is missing: PPOTrainer(model=\"...\") names the base model of a session")
        settings = config_of(PPOConfig, config)
        client = self._service.create_lora_training_client(self._model, settings.lora_rank)
        return type(self).from_training_client(client, settings, reward_fn=reward_fn, preference=preference,
                                               reference=reference, value_fn=value_fn)

    @property
    def client(self) -> TrainingClient:
        """The run in training."""
        if self._client is None:
            raise BiosError("this PPOTrainer has no run yet: use what create_session returns, or from_training_client")
        return self._client

    # -- rollouts --------------------------------------------------------------------------------------------

    def collect_rollouts(self, prompts: Sequence[Text]) -> List[Rollout]:
        """Samples ``group_size`` completions of each prompt from the weights as they are now.

        ``prompts``: texts, lists of token ids or :class:`ModelInput`. All are sampled at the same time. The rollouts of a
        prompt follow each other.
        """
        client, settings = self.client, self.config
        if isinstance(prompts, (str, ModelInput)) or not prompts:
            raise InvalidArgumentError("prompts", "expected a list of prompts, not empty")
        tokenizer = self._get_tokenizer()
        inputs = [ModelInput.from_ints(tokens_of(p, f"prompts[{i}]", tokenizer)) for i, p in enumerate(prompts)]
        room = self._context_length()
        futures = [client.sample(prompt, settings.sampling(self._seed(i), room - prompt.length), settings.group_size)
                 for i, prompt in enumerate(inputs)]
        rollouts: List[Rollout] = []
        for i, (prompt, future) in enumerate(zip(inputs, futures)):
            for sequence in future.result().sequences:
                logprobs = sequence.model_logprobs
                if logprobs is None or any(p is None for p in logprobs):
                    raise BiosError(f"prompts[{i}]: the server gave no log-probabilities for a completion")
                rollouts.append(Rollout(prompt, sequence.tokens, list(logprobs), i, sequence.stop_reason, tokenizer))
        return rollouts

    async def collect_rollouts_async(self, prompts: Sequence[Text]) -> List[Rollout]:
        """``collect_rollouts`` for asyncio."""
        return await on_thread(self.collect_rollouts, prompts)

    def _context_length(self) -> int:
        """The context of the base model, in tokens."""
        if self._context is None:
            base = self.client.get_info().model_name
            models = self.client._session.transport.get("/get_server_capabilities")["supported_models"]
            self._context = next((int(m["max_context_length"]) for m in models
                                  if m["model_name"] == base and m.get("max_context_length")), UNKNOWN_CONTEXT)
        return self._context

    def _seed(self, index: int) -> int:
        if self.config.seed is None:
            return secrets.randbits(62)
        return random.Random(f"{self.config.seed} {self._iterations} {index}").getrandbits(62)

    def _get_tokenizer(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = self.client.get_tokenizer()
        return self._tokenizer

    # -- rewards ---------------------------------------------------------------------------------------------

    def compute_rewards(self, rollouts: Sequence[Rollout], reward_fn: Optional[RewardFunction] = None) -> List[float]:
        """The reward of each rollout.

        From ``reward_fn``, else the trainer's ``reward_fn``, else its ``preference``, else a :class:`Judge` of the model that
        ``BIOS_REWARD_MODEL`` names (a base model, or the path of a checkpoint). Without any of them a stand-in is used,
        with a warning: 1 for a completion that ends by itself, less the share of its tokens that repeat the one before.
        The stand-in only lets a program run; it is no measure of quality.
        """
        items = list(rollouts)
        reward = reward_fn or self._reward_fn
        if reward is None:
            preference = self._preference or self._configured()
            if preference is not None:
                return win_fractions(items, preference)
            self._warn()
            reward = fallback_reward
        return [number(reward(rollout), f"reward of rollouts[{i}]") for i, rollout in enumerate(items)]

    async def compute_rewards_async(self, rollouts: Sequence[Rollout],
                                    reward_fn: Optional[RewardFunction] = None) -> List[float]:
        """``compute_rewards`` for asyncio."""
        return await on_thread(self.compute_rewards, rollouts, reward_fn)

    def _configured(self) -> Optional[Preference]:
        model = os.environ.get("BIOS_REWARD_MODEL")
        if not model:
            return None
        session = self.client._session
        path, base = (model, None) if "://" in model else (None, model)
        self._preference = Judge(SamplingClient._create(session, base, path))
        return self._preference

    def _warn(self) -> None:
        if not self._warned:
            log.warning("PPOTrainer has no reward: give reward_fn or preference, or set BIOS_REWARD_MODEL; a stand-in"
                        " that prefers completions that end and do not repeat themselves is used")
            self._warned = True

    # -- updates ---------------------------------------------------------------------------------------------

    def ppo_update(self, rollouts: Sequence[Rollout], rewards: Sequence[float]) -> Dict[str, float]:
        """Trains on rollouts with their rewards: ``num_substeps`` optimizer steps, each over a part of them.

        Rollouts whose tokens all have advantage 0, such as those of a group with equal rewards, are left out; if none
        is left, no step is made: ``step`` stays, and ``grad_norm`` is 0. Returns metrics: ``mean_reward``,
        ``reward_std``, ``tokens_per_completion``, ``stopped`` (share that ended by themselves), ``entropy`` (estimated from
        the samples), ``constant_groups`` (share of groups with equal rewards), ``kl_reference`` (with a reference), and of
        the training ``kl_sample_train`` and ``kl_sample_train_v2`` (how far the weights have moved from those that sampled;
        of the first substep 0 but for rounding), ``clip_fraction``, ``loss``, ``grad_norm`` and ``step``.
        """
        client, settings = self.client, self.config
        items = list(rollouts)
        numbers = [number(r, f"rewards[{i}]") for i, r in enumerate(rewards)]
        if not items or len(numbers) != len(items):
            raise InvalidArgumentError("rewards", f"expected one for each of the rollouts ({len(items)}, at least one), got"
                                                  f" {len(numbers)}")
        differences = self._differences(items)
        advantages = self._advantages(items, numbers, differences)
        metrics = _sampling_metrics(items, numbers)
        if self._reference is not None:
            metrics["kl_reference"] = mean([d for row in differences for d in row])
        order = [i for i in range(len(items)) if any(advantages[i])]
        metrics.update(self._learn(client, settings, items, advantages, order))
        self._iterations += 1
        return metrics

    async def ppo_update_async(self, rollouts: Sequence[Rollout], rewards: Sequence[float]) -> Dict[str, float]:
        """``ppo_update`` for asyncio."""
        return await on_thread(self.ppo_update, rollouts, rewards)

    def step(self, prompts: Sequence[Text]) -> Dict[str, float]:
        """One iteration over these prompts; returns the metrics of :meth:`ppo_update`."""
        rollouts = self.collect_rollouts(prompts)
        return self.ppo_update(rollouts, self.compute_rewards(rollouts))

    async def step_async(self, prompts: Sequence[Text]) -> Dict[str, float]:
        """``step`` for asyncio."""
        return await on_thread(self.step, prompts)

    def train(self, prompts: Sequence[Text], iterations: int) -> Iterator[Dict[str, float]]:
        """Iterations of ``batch_size`` prompts each, which are gone through in order, again and again; gives the metrics of
        each when it is done. It is a generator: nothing happens until it is iterated."""
        whole(iterations, "iterations", 1)
        if isinstance(prompts, (str, ModelInput)) or not prompts:
            raise InvalidArgumentError("prompts", "expected a list of prompts, not empty")
        size = min(self.config.batch_size, len(prompts))
        for i in range(iterations):
            yield self.step([prompts[(i * size + j) % len(prompts)] for j in range(size)])

    def _differences(self, rollouts: List[Rollout]) -> List[List[float]]:
        """log p - log p_reference of each token; 0 without a reference."""
        reference = self._reference
        if reference is None:
            return [[0.0] * len(r.tokens) for r in rollouts]
        futures = [scored(reference, r.prompt.to_ints(), r.tokens) for r in rollouts]
        return [[p - q for p, q in zip(r.logprobs, completion_logprobs(future.result(), len(r.tokens)))]
                for r, future in zip(rollouts, futures)]

    def _advantages(self, rollouts: List[Rollout], rewards: List[float],
                    differences: List[List[float]]) -> List[List[float]]:
        """The advantage of each token of each completion."""
        settings = self.config
        baselines = _baselines(rollouts, rewards)
        penalties = [[settings.kl_coef * d for d in row] for row in differences]
        advantages: List[List[float]] = []
        if settings.advantages == "group":
            # Centered over the batch: a penalty on every token alike would only favor short completions.
            mean_penalty = mean([p for row in penalties for p in row])
            for i, row in enumerate(penalties):
                advantages.append([rewards[i] - baselines[i] - (p - mean_penalty) for p in row])
        else:
            for i, row in enumerate(penalties):
                gains = [-p for p in row]
                gains[-1] += rewards[i]
                values = self._values(i, rollouts[i], baselines[i])
                advantages.append(generalized_advantages(gains, values, settings.gamma, settings.lam))
        if settings.normalize:
            std = deviation([a for row in advantages for a in row])
            advantages = [[a / std for a in row] for row in advantages] if std > 0 else advantages
        return advantages

    def _values(self, index: int, rollout: Rollout, baseline: float) -> List[float]:
        if self._value_fn is None:
            return [baseline] * len(rollout.tokens)
        values = [number(v, f"value_fn of rollouts[{index}]") for v in self._value_fn(rollout)]
        if len(values) != len(rollout.tokens):
            raise InvalidArgumentError("value_fn", f"gave {len(values)} values for the {len(rollout.tokens)} tokens of"
                                                   f" rollouts[{index}]")
        return values

    def _learn(self, client: TrainingClient, settings: PPOConfig, rollouts: List[Rollout],
               advantages: List[List[float]], order: List[int]) -> Dict[str, float]:
        """Submits all passes and steps, then waits for them."""
        passes: List[Tuple[List[int], Future[ForwardBackwardOutput], Future[OptimStepResponse]]] = []
        for epoch in range(settings.num_epochs):
            random.Random(f"{settings.seed} {self._iterations} {epoch}").shuffle(order)
            parts = min(settings.num_substeps, len(order))
            for part in range(parts):
                chosen = order[part * len(order) // parts:(part + 1) * len(order) // parts]
                data = [_datum(rollouts[i], advantages[i]) for i in chosen]
                passes.append((chosen, client.forward_backward(data, settings.loss_fn, settings.loss_config()),
                               client.optim_step(settings.adam())))
        ratios: List[float] = []
        losses: List[float] = []
        metrics: Dict[str, float] = {} if passes else {"step": float(client.get_info().step or 0), "grad_norm": 0.0}
        for chosen, passed, stepped in passes:
            output = passed.result()
            losses.append(output.metrics.get("loss:sum", math.nan))
            for at, i in enumerate(chosen):
                now = last_logprobs(output, at, len(rollouts[i].tokens))
                ratios += [p - q for p, q in zip(now, rollouts[i].logprobs)]
            answer = stepped.result()
            metrics["step"] = float(answer.step or 0)
            metrics["grad_norm"] = float((answer.metrics or {}).get("grad_norm", math.nan))
        metrics["loss"] = sum(losses)
        metrics["kl_sample_train"] = mean([-d for d in ratios])
        metrics["kl_sample_train_v2"] = mean([d * d / 2 for d in ratios])
        outside = [abs(math.expm1(min(d, 50.0))) > settings.clip for d in ratios]
        metrics["clip_fraction"] = mean([float(o) for o in outside])
        metrics["trained"] = len(order) / len(rollouts)
        return metrics

    def __repr__(self) -> str:
        return f"PPOTrainer({self._client.model_id if self._client is not None else self._model})"


def generalized_advantages(gains: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> List[float]:
    """Generalized advantage estimation (Schulman et al., 2016) over the tokens of a completion: ``gains``: the reward of each
    token; ``values``: what is expected from each token on; nothing is expected after the last."""
    advantages = [0.0] * len(gains)
    ahead, after = 0.0, 0.0
    for t in range(len(gains) - 1, -1, -1):
        ahead = gains[t] + gamma * after - values[t] + gamma * lam * ahead
        advantages[t], after = ahead, values[t]
    return advantages


def fallback_reward(rollout: Rollout) -> float:
    """The reward that is used where none was given: 1 for a completion that ends by itself, less the share of its tokens
    that are equal to the one before."""
    tokens = rollout.tokens
    repeated = sum(a == b for a, b in zip(tokens, tokens[1:]))
    return float(rollout.stop_reason == "stop") - repeated / max(1, len(tokens) - 1)


def _datum(rollout: Rollout, advantages: List[float]) -> Datum:
    return completion_datum(rollout.prompt.to_ints(), rollout.tokens, logprobs=rollout.logprobs, advantages=advantages)


def _baselines(rollouts: List[Rollout], rewards: List[float]) -> List[float]:
    """The mean reward of each rollout's group; where every group has one rollout, that of all."""
    groups = groups_of(rollouts)
    if len(groups) == len(rollouts):
        return [mean(rewards)] * len(rollouts)
    means = {group: mean([rewards[i] for i in members]) for group, members in groups.items()}
    return [means[rollout.group] for rollout in rollouts]


def _sampling_metrics(rollouts: List[Rollout], rewards: List[float]) -> Dict[str, float]:
    """The metrics of :meth:`PPOTrainer.ppo_update` that are known before training."""
    groups = groups_of(rollouts).values()
    return {
        "mean_reward": mean(rewards),
        "reward_std": deviation(rewards),
        "tokens_per_completion": mean([float(len(r.tokens)) for r in rollouts]),
        "stopped": mean([float(r.stop_reason == "stop") for r in rollouts]),
        "entropy": -mean([p for r in rollouts for p in r.logprobs]),
        "constant_groups": mean([float(len({rewards[i] for i in members}) == 1) for members in groups]),
    }
