"""A run that was saved and loaded, or whose server was killed, gives the bits of one that never was."""

from __future__ import annotations

import time

from harness import adapter, batch, holds, results, same, server, train
from bios import types


def saved_and_loaded_in_a_new_process() -> None:
    with server() as running:
        service = running.client()
        run = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=5)
        results(train(run, range(10)))
        path = run.save_state("ten", metadata={"step": 10, "nested": {"a": [1, None]}}).result().path
        undisturbed = results(train(run, range(10, 20)))
        wanted = adapter(service, run, "end")

        running.stop()
        running.start()
        service = running.client()
        again = service.load_training_client(path)
        holds("a loaded run is a new run", again.model_id != run.model_id)
        same("losses after a load in a new process", results(train(again, range(10, 20))), undisturbed)
        same("adapter after a load in a new process", adapter(service, again, "end"), wanted)

        by_load_state = service.create_lora_training_client(base_model="bios/tiny")
        by_load_state.load_state(path)
        same("losses after load_state without a rank", results(train(by_load_state, range(10, 20))), undisturbed)
        same("adapter after load_state", adapter(service, by_load_state, "end"), wanted)

        fork = service.load_training_client(path)
        results(train(fork, range(3), seed=9))
        same("a fork leaves its parent alone", adapter(service, again, "end2"), wanted)


def killed_in_the_middle() -> None:
    with server() as running:
        service = running.client()
        quiet = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=6)
        undisturbed = results(train(quiet, range(20)))
        wanted = adapter(service, quiet, "end")

        run = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=6)
        futures = train(run, range(12))
        futures[5].result()
        running.kill()
        running.start()
        futures += train(run, range(12, 16))
        # a kill between forward_backward and optim_step: the unapplied gradient survives as well
        futures.append(run.forward_backward(batch(16), "cross_entropy"))
        futures[-1].result()
        running.kill()
        running.start()
        run.optim_step(types.AdamParams(learning_rate=1e-3))
        futures += train(run, range(17, 20))
        same("every result of a run whose server was killed twice", results(futures), undisturbed)
        same("its adapter", adapter(service, run, "end"), wanted)
        same("a result can be fetched again", results(futures[-3:]), undisturbed[-3:])


def killed_and_nobody_asks() -> None:
    """Unwaited operations are executed after a restart though no client comes back."""
    with server() as running:
        service = running.client()
        run = service.create_lora_training_client(base_model="bios/tiny", rank=4, seed=7)
        train(run, range(8))
        run.save_state("unwaited")
        running.kill()
        running.start()
        other = running.client()
        rest = other.create_rest_client()
        limit = time.monotonic() + 120
        while True:
            names = [c.checkpoint_id for c in rest.list_checkpoints(run.model_id).result().checkpoints]
            if "weights/unwaited" in names:
                break
            if time.monotonic() > limit:
                raise SystemExit("✗ a save that nobody waited for did not appear")
            time.sleep(0.2)
        print("✓ a save that nobody waited for appears", flush=True)
        loaded = other.load_training_client(f"bios://{run.model_id}/unwaited")
        fresh = other.create_lora_training_client(base_model="bios/tiny", rank=4, seed=7)
        results(train(fresh, range(8)))
        same("it is the state after all eight steps", adapter(other, loaded, "a"), adapter(other, fresh, "b"))


def killed_while_what_it_loaded_is_deleted() -> None:
    with server() as running:
        service = running.client()
        source = service.create_lora_training_client(base_model="bios/tiny", rank=8, seed=7)
        results(train(source, range(4)))
        path = source.save_state("start").result().path
        undisturbed = results(train(service.load_training_client(path), range(4, 8)))
        path = source.save_state("deleted").result().path
        run = service.create_lora_training_client(base_model="bios/tiny", rank=8)
        run.load_state_with_optimizer(path).result()
        service.create_rest_client().delete_checkpoint_from_bios_path(path).result()
        running.kill()
        running.start()
        same("a run whose server is killed when what it has loaded is deleted", results(train(run, range(4, 8))), undisturbed)
        holds("what was deleted is not listed", [c.checkpoint_id for c in
              service.create_rest_client().list_checkpoints(source.model_id).result().checkpoints] == ["weights/start"])


if __name__ == "__main__":
    saved_and_loaded_in_a_new_process()
    killed_in_the_middle()
    killed_while_what_it_loaded_is_deleted()
    killed_and_nobody_asks()
