"""Automated Checkpointing: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import batch, scaled, training_client

import bios
from collections import deque

class CheckpointManager:
    def __init__(self, training_client, max_checkpoints=5):
        self.training_client = training_client
        self.checkpoints = deque(maxlen=max_checkpoints)

    def save_checkpoint(self, step: int):
        """Save checkpoint and maintain max_checkpoints limit"""
        path = self.training_client.save_state(
            name=f"auto_checkpoint_{step}"
        ).result().path

        self.checkpoints.append({
            'step': step,
            'path': path
        })

        return path

    def get_latest_checkpoint(self):
        """Get most recent checkpoint"""
        return self.checkpoints[-1] if self.checkpoints else None

# Usage
manager = CheckpointManager(training_client, max_checkpoints=5)

for step in range(scaled(10000)):
    training_client.forward_backward(batch, "cross_entropy")
    training_client.optim_step()

    # Save every 500 steps (keeps only last 5)
    if step % scaled(500) == 0:
        manager.save_checkpoint(step)

# Resume from latest
latest = manager.get_latest_checkpoint()
if latest:
    training_client.load_state(latest['path'])
    print(f"Resumed from step {latest['step']}")
