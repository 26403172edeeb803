"""Observability: metrics, readiness, the history of a run over a kill, and a run that waits for a damaged blob: its
clients receive the reason, it is recorded once, and the run continues when the blob is restored."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import List

from harness import batch, blob_files, holds, page, results, server, train, until


def value(metrics: str, name: str) -> float:
    """The sum of a metric over the labels that `name`, a pattern, leaves open."""
    return sum(float(number) for number in re.findall(rf"^{name} ([0-9.eE+-]+)$", metrics, re.M))


def point(data: Path) -> Path:
    """The newest recovery point."""
    return max(blob_files(data, "recovery"), key=lambda f: f.stat().st_mtime)


with server() as running:
    until("the server is ready", lambda: page(running, "/readyz")[0] == 200)
    holds("it is healthy", page(running, "/healthz")[0] == 200)
    service = running.client()
    rest = service.create_rest_client()
    client = service.create_lora_training_client(base_model="bios/tiny", rank=4)
    run = client.model_id

    def kinds() -> List[str]:
        return [note.kind for note in rest.get_training_run_history(run).result().history]

    results(train(client, range(25)))
    metrics = page(running, "/metrics")[1]
    for name, least in (
            ('bios_operations_accepted_total{model="tiny",operation="optim_step"}', 25),
            ('bios_operations_executed_total{model="tiny",operation="forward_backward"}', 25),
            (r'bios_http_requests_total{method="POST",route="forward_backward",status="200"}', 25),
            ('bios_engine_tokens_trained_total{model="tiny"}', 100),
            ('bios_journal_write_seconds_count{entity="run"}', 50),
            ("process_resident_memory_bytes", 1e7)):
        holds(f"{name} is at least {least}", value(metrics, name) >= least)
    until("a recovery point is in the history", lambda: "recovery_point" in kinds())
    holds("its bytes went to the store",
          value(page(running, "/metrics")[1], 'bios_blob_bytes_total{direction="written"}') > 10_000)
    before = kinds()
    holds(f"the history begins with the beginning: {before}", before[:2] == ["created", "opened"])

    running.kill()
    running.start()
    until("the run recovers by itself", lambda: "recovered" in kinds())
    holds("the metrics know", value(page(running, "/metrics")[1], r'bios_operations_replayed_total{[^}]*}') > 0)

    running.kill()
    blob = point(running.data)
    whole = blob.read_bytes()
    blob.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    running.start()
    future = client.forward_backward(batch(7), "cross_entropy")
    until("the run waits, and its history says so", lambda: "waiting" in kinds())
    time.sleep(5)
    notes = [n for n in rest.get_training_run_history(run).result().history if n.kind == "waiting"]
    holds("it says it once, whatever the number of tries", len(notes) == 1)
    holds("with the blob", blob.name in notes[0].detail["message"] and notes[0].detail["code"] == "blob_damaged")
    metrics = page(running, "/metrics")[1]
    holds("the damage is counted", value(metrics, "bios_blob_damaged_total") >= 2)
    holds("one run waits", value(metrics, 'bios_runs_waiting{code="blob_damaged",model="tiny"}') == 1)
    log = running.log.read_text()
    holds("the log names blob, place and run", 'msg="a blob is damaged' in log and str(running.data) in log
          and f'run="{run}"' in log)
    status, text = page(running, "/api/v1/retrieve_future", {"request_id": f"{run}:51"})
    answer = json.loads(text)
    holds(f"those who wait are told: {status}", status == 408 and answer["queue_state"] == "paused_capacity"
          and blob.name in answer["queue_state_reason"])
    blob.write_bytes(whole)
    holds("it goes on when the blob is whole", future.result().metrics["tokens:sum"] > 0)
    until("and nothing waits", lambda: value(page(running, "/metrics")[1], r'bios_runs_waiting{[^}]*}') == 0)
    holds("the history ends well", "waiting" in kinds() and kinds()[-1] != "waiting")
