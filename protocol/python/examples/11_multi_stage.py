"""Multi-Stage Training: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import prompts, scaled, sft_dataloader

import bios
from bios import types
from bios.rlhf import PPOTrainer

# Stage 1: Supervised Fine-Tuning
service_client = bios.ServiceClient()
sft_client = service_client.create_lora_training_client(
    base_model="ultrasafe/usf-conversation",
    rank=16
)

# SFT training loop
for epoch in range(3):
    for batch in sft_dataloader:
        sft_client.forward_backward(batch, "cross_entropy")
        sft_client.optim_step()

# Save SFT checkpoint
sft_path = sft_client.save_state(name="sft_complete").result().path
print(f"SFT complete: {sft_path}")

# Stage 2: RLHF Training
# Load SFT checkpoint as starting point for RLHF
rlhf_client = service_client.load_training_client(sft_path)

# Configure for PPO training
ppo_trainer = PPOTrainer.from_training_client(rlhf_client)

# RLHF training loop
for iteration in range(scaled(1000)):
    rollouts = ppo_trainer.collect_rollouts(prompts)
    rewards = ppo_trainer.compute_rewards(rollouts)
    ppo_trainer.ppo_update(rollouts, rewards)

# Save final RLHF model
final_path = rlhf_client.save_state(name="rlhf_final").result().path
print(f"RLHF complete: {final_path}")
