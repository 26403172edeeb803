"""Shortcut: Save and Sample: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import params, prompt, tokenizer, training_client

# Shortcut: save weights and get sampling client in one call
sampling_client = training_client.save_weights_and_get_sampling_client(
    name="checkpoint_1000"
)

# Immediately ready to sample
result = sampling_client.sample(prompt, params).result()
print(tokenizer.decode(result.sequences[0].tokens))
