"""What the reference page's listings take for granted: a tokenizer, batches, a prompt, a run, real paths.

Names are made when they are imported. Environment: ``BIOS_BASE_URL``, ``BIOS_API_KEY``;
``BIOS_EXAMPLE_SCALE`` divides the page's loop counts (default 250; 1 runs them in full);
``BIOS_EXAMPLE_MODEL`` is the base model of the run and the paths that are made here (default ultrasafe/usf-finance);
``BIOS_EXAMPLE_FOLDER`` is the folder that holds its files, for PEFT.
"""

import json
import os
import sys
import tarfile
from datetime import datetime

try:
    import bios
except ImportError:  # run from the source tree
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))
    import bios
from bios import types

TEXT = """Revenue rose eight percent to 412 million, while costs fell by three. Cash flow was 61 million.
The board proposes a dividend of 1.20 a share and expects growth of five to seven percent next year.
Net debt fell below one year's earnings for the first time since the merger, and the rating was raised."""


class Prelude:
    """Makes each name once, when it is first asked for."""

    def __init__(self, base_url=None, base_model=None, scale=None):
        self._base_url = base_url
        self._model = base_model or os.environ.get("BIOS_EXAMPLE_MODEL") or "ultrasafe/usf-finance"
        self._scale = scale or int(os.environ.get("BIOS_EXAMPLE_SCALE") or 250)
        self.scaled = lambda count: max(1, count // self._scale)
        self.example_path = self._example_path
        self.example_base = example_base
        self.datetime = datetime
        self.epoch, self.step = 2, 750
        self.current_epoch, self.current_loss, self.current_lr = 2, 1.25, 1e-4
        self.training_config = {"rank": 16, "schedule": {"kind": "constant", "warmup": 0}, "layers": ["attn", "mlp"]}
        self.params = types.SamplingParams(max_tokens=16, temperature=0.7)

    def __getattr__(self, name):
        make = type(self).__dict__.get("_make_" + name)
        if make is None:
            raise AttributeError(name)
        setattr(self, name, make(self))
        return getattr(self, name)

    def _make_service(self):
        return bios.ServiceClient(base_url=self._base_url)

    def _make_training_client(self):
        return self.service.create_lora_training_client(base_model=self._model, rank=16)

    def _make_tokenizer(self):
        return self.service.create_sampling_client(base_model=self._model).get_tokenizer()

    def _make_batches(self):
        tokens = self.tokenizer.encode(TEXT)
        width, count = min(16, len(tokens) - 1), self.scaled(10000)
        starts = [(7 * i) % (len(tokens) - width) for i in range(2 * count)]
        made = [types.Datum(model_input=types.ModelInput.from_ints(tokens[s:s + width]),
                            loss_fn_inputs={"target_tokens": tokens[s + 1:s + 1 + width], "weights": [1.0] * width})
                for s in starts]
        return [made[2 * i:2 * i + 2] for i in range(count)]

    def _make_sft_dataloader(self):
        return self.batches[:2]

    def _make_prompts(self):
        return ["Revenue rose", "Net debt fell", "The board proposes"]

    def _make_batch(self):
        return self.batches[0]

    def _make_prompt(self):
        return types.ModelInput.from_ints(self.tokenizer.encode("Revenue rose"))

    def _example_path(self, placeholder):
        """A real path of the form that the page's made-up one has."""
        client = self.service.create_lora_training_client(base_model=self._model, rank=16)
        for _ in range(2):
            client.forward_backward(self.batch, "cross_entropy")
            client.optim_step()
        name = placeholder.rpartition("/")[2]
        if "/sampler_weights/" in placeholder:
            return client.save_weights_for_sampler(name).result().path
        return client.save_state(name).result().path


def example_base(_placeholder):
    """The base model that the downloaded archive names, or the folder where this machine has it."""
    if os.environ.get("BIOS_EXAMPLE_FOLDER"):
        return os.environ["BIOS_EXAMPLE_FOLDER"]
    with tarfile.open("model-checkpoint.tar.gz") as tar:
        return json.load(tar.extractfile("adapter/adapter_config.json"))["base_model_name_or_path"]


_prelude = Prelude()


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_prelude, name)
