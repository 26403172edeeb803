"""Save and Load Training State: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import batch, scaled

import bios

# Setup training client
service_client = bios.ServiceClient()
training_client = service_client.create_lora_training_client(
    base_model="ultrasafe/usf-healthcare",
    rank=16
)

# Train for some steps
for step in range(scaled(1000)):
    training_client.forward_backward(batch, "cross_entropy")
    training_client.optim_step()

# Save complete training state (weights + optimizer)
resume_path = training_client.save_state(
    name="checkpoint_step_1000"
).result().path

print(f"Saved training state at: {resume_path}")

# Later: Load the checkpoint to resume training
training_client.load_state(resume_path)

# Continue training from exactly where you left off
for step in range(scaled(1000), scaled(2000)):
    training_client.forward_backward(batch, "cross_entropy")
    training_client.optim_step()
