"""Save Weights for Sampling: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import tokenizer

import bios

# Setup
service_client = bios.ServiceClient()
training_client = service_client.create_lora_training_client(
    base_model="ultrasafe/usf-finance",
    rank=32
)

# ... perform training steps ...

# Save checkpoint for sampling
sampling_path = training_client.save_weights_for_sampler(
    name="checkpoint_1000"
).result().path

print(f"Saved weights at: {sampling_path}")

# Create sampling client with that checkpoint
sampling_client = service_client.create_sampling_client(
    model_path=sampling_path
)

# Test the model
from bios import types
prompt = types.ModelInput.from_ints(
    tokenizer.encode("Analyze this financial report...")
)
result = sampling_client.sample(
    prompt=prompt,
    sampling_params=types.SamplingParams(max_tokens=256, temperature=0.7)
).result()

print(tokenizer.decode(result.sequences[0].tokens))
