"""Training with Checkpoints: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import batches, scaled, tokenizer

import bios
from bios import types

# Initialize training
service_client = bios.ServiceClient()
training_client = service_client.create_lora_training_client(
    base_model="ultrasafe/usf-code",
    rank=16
)

# Training loop with periodic checkpointing
checkpoint_interval = scaled(500)
sampling_interval = scaled(1000)

for step in range(scaled(10000)):
    # Training step
    training_client.forward_backward(batches[step], "cross_entropy")
    training_client.optim_step()

    # Periodic full checkpoint for resumption
    if step % checkpoint_interval == 0:
        state_path = training_client.save_state(
            name=f"step_{step}"
        ).result().path
        print(f"Step {step}: Saved state at {state_path}")

    # Periodic sampling checkpoint for evaluation
    if step % sampling_interval == 0:
        # Quick save for sampling (doesn't save optimizer state)
        sampling_client = training_client.save_weights_and_get_sampling_client(
            name=f"eval_{step}"
        )

        # Test the model
        test_prompt = types.ModelInput.from_ints(
            tokenizer.encode("Implement a binary search in Python:")
        )
        result = sampling_client.sample(
            prompt=test_prompt,
            sampling_params=types.SamplingParams(max_tokens=512, temperature=0.3)
        ).result()

        print(f"Step {step}: Generated code sample")
        print(tokenizer.decode(result.sequences[0].tokens))

print("Training complete!")

# Final model save
final_path = training_client.save_state(name="final_model").result().path
print(f"Final model saved at: {final_path}")
