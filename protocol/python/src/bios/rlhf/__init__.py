"""Reinforcement learning and preference training with the primitives of :class:`bios.TrainingClient`.

    from bios.rlhf import PPOTrainer

    trainer = PPOTrainer.from_training_client(training_client, reward_fn=lambda rollout: score(rollout.text))
    for prompts in batches:
        rollouts = trainer.collect_rollouts(prompts)
        rewards = trainer.compute_rewards(rollouts)
        print(trainer.ppo_update(rollouts, rewards))

:class:`DPOTrainer` learns from preferred and rejected completions without rewards; :class:`RewardModel` is trained on
such pairs and gives rewards; :class:`Judge` asks a model which of two completions is better.
"""

from .config import DPOConfig, PPOConfig, RewardConfig
from .dpo import DPOTrainer
from .ppo import PPOTrainer
from .preference import Judge, RewardModel, win_fractions
from .rollout import Pair, Rollout

__all__ = ["DPOConfig", "DPOTrainer", "Judge", "PPOConfig", "PPOTrainer", "Pair", "RewardConfig", "RewardModel", "Rollout",
           "win_fractions"]
