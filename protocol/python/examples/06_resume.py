"""Resume from Checkpoint: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import batch, example_path, scaled

import bios

# Create new service client (e.g., after restart)
service_client = bios.ServiceClient()

# Option 1: Load from path string
checkpoint_path = example_path("bios://usf-finance-abc123/step_5000")
training_client = service_client.load_training_client(checkpoint_path)

# Option 2: Create new client and load state
training_client = service_client.create_lora_training_client(
    base_model="ultrasafe/usf-finance"
)
training_client.load_state(checkpoint_path)

# Continue training seamlessly
for step in range(scaled(5000), scaled(10000)):
    training_client.forward_backward(batch, "cross_entropy")
    training_client.optim_step()

print("Training resumed and completed!")
