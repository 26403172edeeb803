"""Reinforcement learning on the small model: the mean reward rises.

    python rlhf.py [--iterations N] [--seed N] [--append FILE]

A toy task on the base model that Bios ships, which writes little stories: the reward is the share of a completion's letters
that are ``e``. PPO from a reward function, a reward model that learns the same taste from pairs alone, DPO on these pairs, and
in the long form (20 iterations and more) PPO from the reward model. Each must learn, and leave no checkpoint behind.
`--iterations 40` gives the curves of docs/guide/rlhf.md.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Dict, List

from harness import NAME, bios, holds, server
from bios.rlhf import DPOTrainer, Pair, PPOTrainer, RewardModel, Rollout

LONG = 20
PROMPTS = ["Once upon a time", "One day, a little", "The dog was", "Tom and Anna went to", "In the garden", "Mom said",
           "There was a big", "The sun was"]
SETTINGS = {"group_size": 8, "max_tokens": 20, "learning_rate": 4e-3, "num_substeps": 2}


def taste(rollout: Rollout) -> float:
    """The share of the letters that are e."""
    letters = [c for c in rollout.text.lower() if c.isalpha()]
    return letters.count("e") / max(1, len(letters))


def ppo(service: "bios.ServiceClient", iterations: int, seed: int, reward_fn: object) -> List[Dict[str, float]]:
    """The metrics of each iteration; the reward that is told is always the taste's."""
    client = service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)
    trainer = PPOTrainer.from_training_client(client, {**SETTINGS, "seed": seed})
    told = []
    for _ in range(iterations):
        rollouts = trainer.collect_rollouts(PROMPTS)
        rewards = reward_fn.score(rollouts) if isinstance(reward_fn, RewardModel) else [taste(r) for r in rollouts]
        metrics = trainer.ppo_update(rollouts, rewards)
        told.append({**metrics, "taste": sum(map(taste, rollouts)) / len(rollouts)})
        print(f"  {len(told)}: " + ", ".join(f"{k} {v:.4f}" for k, v in told[-1].items()), flush=True)
    kept = service.create_rest_client().list_checkpoints(client.model_id).result().checkpoints
    holds("rollouts leave no checkpoint", not kept)
    return told


def pairs(service: "bios.ServiceClient", seed: int) -> List[Pair]:
    """Pairs of completions of the base model, the one with more taste first."""
    client = service.create_lora_training_client(base_model=NAME, rank=8)
    trainer = PPOTrainer.from_training_client(client, {**SETTINGS, "seed": seed, "group_size": 16})
    groups: Dict[int, List[Rollout]] = {}
    for rollout in trainer.collect_rollouts(PROMPTS):
        groups.setdefault(rollout.group, []).append(rollout)
    found = []
    for members in groups.values():
        ranked = sorted(members, key=taste)
        found += [Pair(best.prompt, best.tokens, worst.tokens) for best, worst in zip(ranked[:7:-1], ranked[:8])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--append", default=None, metavar="FILE", help="appends the curves as a JSON line")
    a = parser.parse_args()
    began = time.monotonic()
    with server() as running:
        service = bios.ServiceClient(base_url=running.url)
        direct = ppo(service, a.iterations, a.seed, taste)
        chosen = pairs(service, a.seed)
        model = RewardModel.from_training_client(
            service.create_lora_training_client(base_model=NAME, rank=8, seed=a.seed), {"learning_rate": 2e-3})
        learned = [model.update(chosen) for _ in range(max(4, a.iterations))]
        print(f"  reward model: {learned[0]} ... {learned[-1]}", flush=True)
        modelled = ppo(service, a.iterations, a.seed, model) if a.iterations >= LONG else []
        tuned = DPOTrainer.from_training_client(
            service.create_lora_training_client(base_model=NAME, rank=8, seed=a.seed), {"learning_rate": 1e-3})
        preferred = [tuned.update(chosen) for _ in range(max(4, a.iterations))]
        print(f"  DPO: {preferred[0]} ... {preferred[-1]}", flush=True)
    line = {"bench": "rlhf", "seed": a.seed, "iterations": a.iterations, "seconds": round(time.monotonic() - began),
            "ppo": [round(m["mean_reward"], 4) for m in direct],
            "ppo_kl_sample_train": [round(m["kl_sample_train"], 6) for m in direct],
            "reward_model_accuracy": [round(m["accuracy"], 4) for m in learned],
            "reward_model_loss": [round(m["loss"], 4) for m in learned],
            "ppo_from_reward_model": [round(m["taste"], 4) for m in modelled],
            "dpo_accuracy": [round(m["accuracy"], 4) for m in preferred],
            "dpo_loss": [round(m["loss"], 4) for m in preferred],
            "date": time.strftime("%Y-%m-%d", time.gmtime())}
    print(json.dumps(line), flush=True)
    if a.append:
        with open(a.append, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    rise = direct[-1]["mean_reward"] - direct[0]["mean_reward"]
    holds(f"PPO raises the mean reward from {direct[0]['mean_reward']:.3f} by {rise:.3f}", rise > (0.05 if a.iterations >= LONG else 0.01))
    holds(f"the reward model agrees with {learned[-1]['accuracy']:.2f} of the pairs",
          learned[-1]["accuracy"] > max(0.6, learned[0]["accuracy"]))
    if modelled:
        print(f"PPO from the reward model: the taste from {modelled[0]['taste']:.3f} to {modelled[-1]['taste']:.3f}")
    holds(f"DPO lowers its loss from {preferred[0]['loss']:.3f} to {preferred[-1]['loss']:.3f}",
          preferred[-1]["loss"] < preferred[0]["loss"] - 0.01)


if __name__ == "__main__":
    main()
