"""Runs do not affect each other, samplers are immutable, and sampling does not affect training."""

from __future__ import annotations

from harness import adapter, holds, results, same, server, train
from bios import types

GREEDY = types.SamplingParams(max_tokens=24, temperature=0.0)
WARM = types.SamplingParams(max_tokens=24, temperature=0.9, top_k=50, top_p=0.95, seed=11)
PROMPT = types.ModelInput.from_ints([5, 17, 130, 9])


def drawn(client: object) -> object:
    """Token ids and log-probabilities from a sampling client."""
    out = []
    for parameters in (GREEDY, WARM):
        result = client.sample(PROMPT, parameters, num_samples=3).result()  # type: ignore[attr-defined]
        out.append([(list(s.tokens), list(s.logprobs), s.stop_reason) for s in result.sequences])
    return out


def together_as_alone() -> None:
    with server() as running:
        service = running.client()

        def new(rank: int) -> object:
            return service.create_lora_training_client(base_model="bios/tiny", rank=rank, seed=rank)

        small, large = new(4), new(32)
        alone = [results(train(small, range(8), seed=1)), results(train(large, range(8), seed=2))]
        wanted = [adapter(service, small, "end"), adapter(service, large, "end")]

        idle = new(16)
        results(train(idle, range(2), seed=3))
        before = adapter(service, idle, "before")

        small, large = new(4), new(32)
        futures: list = [[], []]
        for step in range(8):
            futures[0] += train(small, range(step, step + 1), seed=1)
            futures[1] += train(large, range(step, step + 1), seed=2)
        same("rank 4 beside rank 32", results(futures[0]), alone[0])
        same("rank 32 beside rank 4", results(futures[1]), alone[1])
        same("their adapters", [adapter(service, small, "end"), adapter(service, large, "end")], wanted)

        results(train(large, range(8, 12), seed=2, weight_decay=0.5))
        same("an idle run beside one with weight decay", adapter(service, idle, "after"), before)


def snapshots_stay() -> None:
    with server() as running:
        service = running.client()
        quiet = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=3)
        undisturbed = results(train(quiet, range(40)))

        run = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=3)
        losses = results(train(run, range(10)))
        named = run.save_weights_and_get_sampling_client("ten")
        ephemeral = run.save_weights_and_get_sampling_client()
        first = drawn(named)
        same("a named and an ephemeral snapshot of one step", drawn(ephemeral), first)
        pending = train(run, range(10, 40), learning_rate=1e-3)
        same("a snapshot sampled while training goes on", drawn(named), first)
        losses += results(pending)
        same("the named snapshot of step 10 at step 40", drawn(named), first)
        same("the ephemeral one", drawn(ephemeral), first)
        same("training beside sampling", losses, undisturbed)
        now = run.save_weights_and_get_sampling_client("ten")
        holds("the same name, saved again, samples the new weights", drawn(now) != first)
        same("who had the old one keeps it", drawn(named), first)
        same("adapter after sampling old snapshots", adapter(service, run, "a"), adapter(service, quiet, "a"))

        tokens = PROMPT.to_ints() + first[0][0][0]  # type: ignore[index]
        sampled = first[0][0][1]  # type: ignore[index]
        at_ten = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=3)
        results(train(at_ten, range(10)))
        datum = types.Datum(types.ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:]})
        trained = at_ten.forward([datum], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].tolist()
        same("log-probabilities of sampler and trainer, to the bit", list(trained[len(PROMPT.to_ints()) - 1:]), list(sampled))
        scored = ephemeral.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
        same("and of compute_logprobs", list(scored[1:]), list(trained))

        running.kill()
        running.start()
        same("the named snapshot after kill -9", drawn(named), first)
        same("the ephemeral snapshot after kill -9", drawn(ephemeral), first)


if __name__ == "__main__":
    together_as_alone()
    snapshots_stay()
