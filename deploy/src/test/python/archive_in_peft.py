"""The downloaded archive, loaded by PEFT, gives the engine's log-probabilities. Needs torch, transformers and peft."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import MODEL, NAME, batch, holds, results, server, train
from bios import types

TOLERANCE = 2e-2  # the shipped model's weights are bf16


def main() -> None:
    with server() as running, TemporaryDirectory() as folder:
        service = running.client()
        run = service.create_lora_training_client(base_model=NAME, rank=8, seed=1)
        results(train(run, range(12), learning_rate=3e-3))
        client = run.save_weights_and_get_sampling_client("final")
        base = service.create_sampling_client(base_model=NAME)
        sequences, moved = [], 0.0
        for datum in batch(77, sequences=6, longest=90):
            tokens = datum.model_input.to_ints()
            scored = client.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
            plain = base.compute_logprobs(types.ModelInput.from_ints(tokens)).result()
            moved = max([moved] + [abs(a - b) for a, b in zip(scored[1:], plain[1:])])
            sequences.append({"tokens": tokens, "logprobs": [None] + list(scored[1:])})
        holds(f"the adapter matters: it moved a log-probability by {moved:.2f}", moved > 0.2)
        Path(folder, "tokens.json").write_text(json.dumps({"sequences": sequences, "tolerance": TOLERANCE}))
        archive = service.create_rest_client().download_checkpoint_archive_from_bios_path(
            f"bios://{run.model_id}/sampler_weights/final").result()
        Path(folder, "archive.tar.gz").write_bytes(archive)
        check = Path(__file__).with_name("peft_check.py")
        status = subprocess.run([sys.executable, str(check), f"{folder}/archive.tar.gz", str(MODEL), f"{folder}/tokens.json"]).returncode
        holds("PEFT gives the engine's log-probabilities", status == 0)


if __name__ == "__main__":
    main()
