"""`bios export`: an adapter merged into a model folder gives the log-probabilities of the service in transformers, and so does
the adapter alone in PEFT. The output layer is trained too, which the small model ties to its embedding.

Needs torch, transformers and peft. `--url URL` uses a server that runs already.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import MODEL, NAME, batch, holds, server, types

from bios import cli, export

STEPS = 6


def check(url: str) -> None:
    import bios

    service = bios.ServiceClient(base_url=url)
    client = service.create_lora_training_client(NAME, rank=8, seed=3, train_unembed=True, train_mlp=True, train_attn=True)
    for step in range(STEPS):
        client.forward_backward(batch(step), "cross_entropy")
        client.optim_step(types.AdamParams(learning_rate=5e-3))
    path = client.save_state("to-export").result().path
    rest = service.create_rest_client()
    with tempfile.TemporaryDirectory(prefix="bios-merged-") as folder:
        def into(name: str) -> str:
            return str(Path(folder) / name)

        for name, dtype in (("wide", "float32"), ("own", None)):
            export.merged(rest, path, into(name), base=str(MODEL), dtype=dtype)
            found = export.check(service, path, into(name))
            print(f"  {name}: {found}")
            holds(f"the merged model is the service's ({dtype or 'the dtypes of the base model'})", found.passed)
        export.adapter(rest, path, into("adapter"))
        found = export.check(service, path, into("adapter"), base=str(MODEL))
        print(f"  adapter: {found}")
        holds("the adapter in PEFT is the service's", found.passed)
        untouched = export.check(service, path, str(MODEL))
        holds("the base model alone is not", not untouched.passed)
        words = ["export", path, into("by-command"), "--merge", "--base", str(MODEL), "--dtype", "float32", "--check",
                 "--url", url]
        holds("the command says so", cli.main(words) == 0)
        holds("and fails where they differ", cli.main([*words[:2], into("strict"), *words[3:], "--tolerance", "0"]) == 1)


def main() -> None:
    if "--url" in sys.argv:
        check(sys.argv[sys.argv.index("--url") + 1])
        return
    with server() as running:
        check(running.url)


if __name__ == "__main__":
    main()
