"""Extract and Load Weights: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import example_base

import tarfile
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

# Extract the archive
with tarfile.open("model-checkpoint.tar.gz", "r:gz") as tar:
    tar.extractall("./downloaded_model")

# Load base model
base_model = AutoModelForCausalLM.from_pretrained(
    example_base("ultrasafe/usf-finance-base")  # Base model reference
)

# Load LoRA adapter
model = PeftModel.from_pretrained(
    base_model,
    "./downloaded_model/adapter"
)

# Load tokenizer
tokenizer = AutoTokenizer.from_pretrained("./downloaded_model/tokenizer")

# Use the model for inference
inputs = tokenizer("Analyze Q3 earnings for...", return_tensors="pt")
outputs = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(outputs[0]))
