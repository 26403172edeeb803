"""Checkpoint Naming Examples: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import epoch, step, training_client

# Sequential numbering
training_client.save_state(name="0000")
training_client.save_state(name="0001")

# Step-based naming
training_client.save_state(name="step_1000")
training_client.save_state(name="step_2000")

# Epoch-based naming
training_client.save_state(name=f"epoch_{epoch}_step_{step}")

# Descriptive naming
training_client.save_state(name="finance_model_v1_final")
