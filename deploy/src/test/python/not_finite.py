"""Numbers that are not finite: the step is skipped and told, the adapter stays finite, its saves load, and the two kinds
of log-probabilities of a sample are what the tutorial says. With `bios.engine.non-finite = fail` the operation fails."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from harness import NAME, adapter, bios, holds, same, server, types


def ratios(q: float, a: float) -> types.Datum:
    """Six tokens, one of which the sampling policy found as good as impossible."""
    return types.Datum(types.ModelInput.from_ints([1, 2, 3, 4, 5, 6]), {
        "target_tokens": [2, 3, 4, 5, 6, 7], "logprobs": [-3.0, -3.0, q, -3.0, -3.0, -3.0],
        "advantages": [1.0, 1.0, a, 1.0, 1.0, 1.0]})


def weighted(weight: float) -> types.Datum:
    """Six tokens with one weight."""
    return types.Datum(types.ModelInput.from_ints([1, 2, 3, 4, 5, 6]), {
        "target_tokens": [2, 3, 4, 5, 6, 7], "weights": [1.0, 1.0, weight, 1.0, 1.0, 1.0]})


CASES = (("importance_sampling with a ratio of e^115", "importance_sampling", ratios(-120, 1), {}, "gradient"),
         ("ppo with an infinite ratio", "ppo", ratios(-2000, -1), {}, "gradient"),
         ("weights of 3e38", "cross_entropy", weighted(3e38), {}, "gradient"),
         ("weights of 1e24", "cross_entropy", weighted(1e24), {"grad_clip": 0.0}, "moments"),
         ("eps of 0 with a zero gradient", "cross_entropy", weighted(1.0), {"eps": 0.0}, "weights"),
         ("a weight decay of 1e30", "cross_entropy", weighted(1.0), {"learning_rate": 3e38, "weight_decay": 1e30}, "weights"))


def finite(numbers: object) -> bool:
    """Whether all of them are finite numbers."""
    return all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)  # type: ignore[attr-defined]


with server() as running:
    service = running.client()
    client = service.create_lora_training_client(base_model=NAME, rank=4)
    before = adapter(service, client, "before")
    for what, loss, datum, settings, reason in CASES:
        found = client.train([datum], loss, **{"learning_rate": 1e-3, **settings})
        holds(f"{what}: the step is skipped", found.metrics["skipped_steps:sum"] == 1 and found.step == 0)
        holds(f"{what}: the reason is the {reason}", found.metrics[f"skipped_{reason}:sum"] == 1)
        holds(f"{what}: all metrics are numbers: {found.metrics}", finite(found.metrics.values()))
    same("no weight has changed", adapter(service, client, "after"), before)
    seen = client.forward_backward([ratios(-120, 1)], "importance_sampling").result()
    holds("the operation counts the token", seen.metrics["non_finite:sum"] == 1)
    holds("a step that is skipped says what was not finite",
          client.optim_step(types.AdamParams(learning_rate=1e-3)).result().skipped == "gradient")
    holds("weights of 1e24 train when clipped",
          client.train([weighted(1e24)], learning_rate=1e-3, grad_clip=1.0).metrics["skipped_steps:sum"] == 0)
    holds("the run trains on", client.train([weighted(1.0)], learning_rate=1e-3).step == 2)
    path = client.save_state("trained").result().path
    client.load_state(path).result()
    holds("its save loads", client.train([weighted(1.0)], learning_rate=1e-3).step == 3)

    sampler = client.save_weights_and_get_sampling_client("trained")
    prompt = types.ModelInput.from_ints([1, 2, 3, 4])
    for settings in ({"temperature": 0.7}, {"temperature": 1.0, "top_k": 5}, {"temperature": 1.3, "top_p": 0.5},
                     {"temperature": 1.0}, {"temperature": 0.0}):
        drawn = sampler.sample(prompt, types.SamplingParams(max_tokens=8, seed=3, **settings)).result().sequences[0]
        whole = [1, 2, 3, 4] + drawn.tokens
        scored = sampler.compute_logprobs(types.ModelInput.from_ints(whole)).result()
        same(f"{settings}: the model's own log-probabilities are those of a prompt", drawn.model_logprobs, scored[4:])
        own = settings["temperature"] in (0.0, 1.0) and "top_k" not in settings
        same(f"{settings}: both are {'the same' if own else 'different'}", drawn.model_logprobs == drawn.logprobs, own)
    far = client.train([weighted(1.0)], learning_rate=1e30)
    holds("a learning rate of 1e30 leaves the weights finite", far.metrics["skipped_steps:sum"] == 0)
    spoilt = client.train([weighted(1.0)], learning_rate=1e30)
    holds("the next step is skipped", spoilt.metrics["skipped_gradient:sum"] == 1)
    holds("all its metrics are numbers", finite(spoilt.metrics.values()))
    far_sampler = client.save_weights_and_get_sampling_client("far")
    try:
        far_sampler.sample(prompt, types.SamplingParams(max_tokens=4)).result()
        raise SystemExit("✗ an overflowing adapter was sampled")
    except bios.BiosError as refused:
        holds(f"sampling an overflowing adapter says why: {refused}", "not finite" in str(refused))
    client.load_state(path).result()
    holds("an earlier state mends the run", client.train([weighted(1.0)]).metrics["skipped_steps:sum"] == 0)

with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "fail.conf"
    config.write_text("bios.engine.non-finite = fail\n")
    with server(arguments=["--config", str(config)]) as running:
        client = running.client().create_lora_training_client(base_model=NAME, rank=4)
        def fails(what: str, future: Any) -> None:
            try:
                future.result()
            except bios.BiosError as refused:
                holds(f"{what} fails: {refused}", getattr(refused, "code", "") == "non_finite")
            else:
                raise SystemExit(f"✗ {what} did not fail")

        fails("a batch", client.forward_backward([ratios(-120, 1)], "importance_sampling"))
        client.forward_backward([weighted(1.0)], "cross_entropy").result()
        fails("a step", client.optim_step(types.AdamParams(learning_rate=3e38, weight_decay=1e30)))
        holds("the gradient sum is as before both", client.optim_step(types.AdamParams()).result().step == 1)
        client.forward_backward([weighted(1.0)], "cross_entropy").result()
        fails("another part of a batch", client.forward_backward([ratios(-120, 1)], "importance_sampling"))
        fails("the step that would apply the rest", client.optim_step(types.AdamParams()))
        client.forward_backward([weighted(1.0)], "cross_entropy").result()
        holds("the next batch is applied", client.optim_step(types.AdamParams()).result().step == 2)
