import asyncio
import dataclasses
import datetime
import io
import os
import tarfile
import tempfile
import unittest

from case import MODEL, GatewayCase, datum
import bios


class RestTest(GatewayCase):
    def setUp(self):
        super().setUp()
        self.client = self.training(user_metadata={"who": "me"})
        self.client.train([datum()])
        self.state_path = self.client.save_state("final", metadata={"a": 1}).result().path
        self.sampler_path = self.client.save_weights_for_sampler("final").result().path
        self.only_sampler = self.client.save_weights_for_sampler("eval").result().path
        self.rest = self.service().create_rest_client()

    def test_an_archive_comes_as_bytes(self):
        for path in (self.state_path, self.sampler_path, self.only_sampler.replace("sampler_weights/", ""),
                     self.sampler_path.replace("bios", "tinker")):
            data = self.rest.download_checkpoint_archive_from_bios_path(path).result()
            self.assertEqual(data[:2], b"\x1f\x8b")
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                self.assertIn("adapter/adapter_config.json", tar.getnames())
        self.assertEqual(asyncio.run(self.rest.download_checkpoint_archive_from_bios_path_async(path)), data)

    def test_an_adapter_made_elsewhere_is_sent_file_by_file(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(bios.InvalidArgumentError, "adapter_config.json does not exist"):
                self.rest.upload_adapter(folder, MODEL)
            content = {"adapter_config.json": b"{}", "adapter_model.safetensors": os.urandom(3_000_000)}
            for name, data in content.items():
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            for action in ("drop", "lose", (503, {})):
                self.state.fault("safetensors$", action)
            path = self.rest.upload_adapter(folder, MODEL, name="mine", ttl_seconds=60, user_metadata={"a": 1}).result()
            self.assertEqual(path, "bios://tiny-abc/sampler_weights/mine")
            got = self.state.uploads["0"]
            self.assertEqual({name: got[name] for name in content}, content)
            self.assertEqual(got["asked"], {"base_model": MODEL, "name": "mine", "ttl_seconds": 60, "user_metadata": {"a": 1}})
            self.state.fault("safetensors$", (413, {}))
            with self.assertRaises(bios.APIStatusError):
                self.rest.upload_adapter(folder, MODEL).result()
        started = self.rest.external_weights_upload_start(MODEL, bios.types.LoraConfig(rank=4)).result()
        self.assertTrue(started.urls["adapter_config.json"].startswith("http://"))
        with self.assertRaisesRegex(bios.BiosError, "was not uploaded"):
            self.rest.external_weights_upload_finish(started.upload_id).result()

    def test_weights_for_use_elsewhere_are_fetched_by_their_urls(self):
        saved = self.client.save_weights_external("out").result()
        self.assertEqual((saved.path.rpartition("/")[2], saved.size_bytes), ("out", 7))
        for path in (saved.path, saved.path.replace("sampler_weights", "external_weights").replace("bios", "tinker")):
            urls = self.rest.get_external_weights_urls(path).result().urls
            self.assertTrue(urls["adapter_config.json"].endswith("token=t"), urls)

    def test_a_decision_is_repeated_only_if_it_names_its_operation(self):
        run, state = self.client.model_id, self.state
        state.waiting = {"seq_id": 7, "operation": "optim_step", "set_aside": True, "code": "worker_lost", "message": "died"}
        self.assertEqual(self.rest.get_training_run(run).result().waiting_operation,
                         bios.types.WaitingOperation(7, "optim_step", True, "worker_lost", "died"))
        for action in ("lose", (503, {})):
            state.fault("/retry$", action)
        self.rest.retry_set_aside(run).result()
        self.assertEqual(state.decisions, [("retry", {"seq_id": 7})] * 2)
        state.decisions.clear()
        asyncio.run(self.rest.give_up_set_aside_async(run))
        state.waiting["set_aside"] = False
        self.rest.give_up_set_aside(run).result()
        self.rest.give_up_set_aside(run, 5).result()
        self.assertEqual(state.decisions, [("give_up", {"seq_id": 7})] * 2 + [("give_up", {"seq_id": 5})])
        state.decisions.clear()
        state.fault("/retry$", "lose")  # what waits for a store is not set aside
        with self.assertRaisesRegex(bios.APIConnectionError, "may have been carried out"):
            self.rest.retry_set_aside(run).result()
        state.fault("/retry$", (503, {}))
        with self.assertRaises(bios.APIStatusError):
            self.rest.retry_set_aside(run).result()
        state.fault("/retry$", (429, {}))
        self.rest.retry_set_aside(run).result()
        self.assertEqual(state.decisions, [("retry", {})] * 2)
        for wrong in (-1, True, "7"):
            with self.assertRaisesRegex(bios.InvalidArgumentError, "seq_id"):
                self.rest.retry_set_aside(run, wrong)
        state.numbered = False
        self.rest.give_up_set_aside(run).result()
        self.assertEqual(state.decisions[2:], [("give_up", {})])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "older"):
            self.rest.give_up_set_aside(run, 7).result()

    def test_an_archive_that_breaks_off_is_fetched_again(self):
        whole = self.rest.download_checkpoint_archive_from_bios_path(self.sampler_path).result()
        for action in ("cut", "lose", (503, {})):
            self.state.fault("/archive$", action)
            self.assertEqual(self.rest.download_checkpoint_archive_from_bios_path(self.sampler_path).result(), whole)
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "a.tar.gz")
            self.state.fault("/archive$", "cut", 2)
            self.state.fault("/archive$", (503, {}))
            size = self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            self.assertEqual(os.listdir(folder), ["a.tar.gz"])
            with open(name, "rb") as f:
                self.assertEqual(f.read(), whole)
            self.assertEqual(size, len(whole))
            with self.assertRaises(bios.NotFoundError):
                self.rest.download_checkpoint_archive_from_bios_path_to_file(
                    self.sampler_path + "x", os.path.join(folder, "b")).result()
            self.assertEqual(os.listdir(folder), ["a.tar.gz"])
        out = io.BytesIO(b"")
        self.state.fault("/archive$", "cut")
        self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, out).result()
        self.assertEqual(out.getvalue(), whole)

    def test_a_download_goes_on_where_it_broke_off(self):
        whole = self.rest.download_checkpoint_archive_from_bios_path(self.sampler_path).result()
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "a.tar.gz")
            self.state.fault("/archive$", "cut", 2)
            self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            asked = [h.get("Range") for (_, path, _), h in zip(self.state.calls, self.state.headers) if "archive" in path]
            self.assertEqual(asked[-3:], [None, f"bytes={len(whole) // 2}-", f"bytes={3 * len(whole) // 4}-"])
            with open(name, "rb") as file:
                self.assertEqual(file.read(), whole)
            # a program that ended amid a download, and another one that goes on
            self.state.fault("/archive$", "cut", 10 ** 6)
            short = bios.ServiceClient(base_url=self.server.url, retry=bios.RetryPolicy(
                call_seconds=0.0, clock=self.naps.clock, sleep=self.naps.sleep)).create_rest_client()
            with self.assertRaises(bios.APIConnectionError):
                short.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            self.assertEqual(sorted(os.listdir(folder)), ["a.tar.gz", "a.tar.gz.part", "a.tar.gz.part.tag"])
            self.state.faults.clear()
            self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            self.assertNotIn(self.state.headers[-1].get("Range"), (None, "bytes=0-"))
            with open(name, "rb") as file:
                self.assertEqual(file.read(), whole)
            self.assertEqual(os.listdir(folder), ["a.tar.gz"])

    def test_what_is_left_of_another_archive_is_not_used(self):
        whole = self.rest.download_checkpoint_archive_from_bios_path(self.sampler_path).result()
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "a.tar.gz")
            for file, content in ((name + ".part", b"something else"), (name + ".part.tag", b'"other"')):
                with open(file, "wb") as out:
                    out.write(content)
            self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            with open(name, "rb") as file:
                self.assertEqual(file.read(), whole)
            self.state.ranges = False
            self.state.fault("/archive$", "cut", 1)
            size = self.rest.download_checkpoint_archive_from_bios_path_to_file(self.sampler_path, name).result()
            self.assertEqual((size, os.listdir(folder)), (len(whole), ["a.tar.gz"]))

    def test_every_method_of_tinkers_rest_client_is_here(self):
        for name in ("get_training_run_by", "get_weights_info_by", "delete_checkpoint_from", "set_checkpoint_ttl_from",
                     "publish_checkpoint_from", "unpublish_checkpoint_from", "get_checkpoint_archive_url_from"):
            for twin in ("", "_async"):
                self.assertTrue(callable(getattr(self.rest, f"{name}_tinker_path{twin}")), name)
        start = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
        usage = self.rest.get_billing_usage(start, "2026-01-03T00:00:00Z").result()
        self.assertEqual(usage.data[0]["bucket_start"], "2026-01-02T00%3A00%3A00%2B00%3A00")
        session = self.rest.list_sessions().result().sessions[0]
        self.assertEqual(self.rest.export_session_trace(session).result(), self.server.url + "/api/v1/traces/s?token=x")
        for name in ("get_training_run", "list_training_runs", "list_checkpoints", "list_user_checkpoints", "get_session",
                     "list_sessions", "get_sampler", "get_checkpoint_archive_url", "delete_checkpoint", "get_audit_log",
                     "assign_session_project", "get_billing_usage", "export_session_trace", "whoami"):
            self.assertTrue(callable(getattr(self.rest, name)) and callable(getattr(self.rest, name + "_async")), name)

    def test_a_checkpoint_is_published_and_linked(self):
        self.rest.publish_checkpoint_from_tinker_path(self.sampler_path.replace("bios", "tinker")).result()
        shown = {c.path: c.public for c in self.rest.list_checkpoints(self.client.model_id).result().checkpoints}
        self.assertEqual(shown[self.sampler_path], True)
        self.assertEqual(shown[self.state_path], False)
        asyncio.run(self.rest.unpublish_checkpoint_from_bios_path_async(self.sampler_path))
        self.assertFalse(any(c.public for c in self.rest.list_checkpoints(self.client.model_id).result().checkpoints))
        link = self.rest.get_checkpoint_archive_url(self.client.model_id, "sampler_weights/final").result()
        self.assertEqual(link.url, self.server.url + "/api/v1/archives/x?token=y")
        self.assertEqual(link.expires.year, 2026)

    def test_projects_samplers_and_the_audit(self):
        session = self.rest.list_sessions().result().sessions[0]
        self.rest.assign_session_project(session, "p1").result()
        self.assertEqual(self.state.sessions[session]["project"], "p1")
        self.rest.list_training_runs(project_id="p 1").result()
        sampler = self.service().create_sampling_client(base_model=MODEL)
        self.assertEqual(self.rest.get_sampler(sampler.sampler_id).result().base_model, MODEL)
        self.assertEqual(self.rest.get_audit_log(day="2026-01-02").result().entries[0]["day"], "2026-01-02")

    def test_what_does_not_exist_is_not_found(self):
        with self.assertRaises(bios.NotFoundError):
            self.rest.download_checkpoint_archive_from_bios_path("bios://x-000000000000/sampler_weights/final").result()
        with self.assertRaises(bios.InvalidPathError):
            self.rest.download_checkpoint_archive_from_bios_path("bios://<unique_id>/sampler_weights/final")

    def test_runs_are_listed(self):
        other = self.training()
        ids = self.rest.list_training_run_ids(limit=1).result()
        self.assertEqual((ids.training_run_ids, ids.has_more), ([other.model_id], True))
        runs = self.rest.list_training_runs().result()
        self.assertEqual(runs.cursor.total_count, 2)
        run = runs.training_runs[1]
        self.assertEqual((run.base_model, run.step, run.user_metadata), (MODEL, 1, {"who": "me"}))
        self.assertEqual(run.last_request_time.isoformat(), "2026-01-02T03:04:05.123456+00:00")
        self.assertEqual(self.rest.get_training_run_by_bios_path(self.state_path).result(), run)
        self.assertEqual(asyncio.run(self.rest.get_training_run_async(run.training_run_id)), run)
        with self.assertRaises(bios.InvalidArgumentError):
            self.rest.get_training_run("a/b")

    def test_a_history_tells_what_happened(self):
        history = self.rest.get_training_run_history(self.client.model_id).result().history
        self.assertEqual([note.kind for note in history], ["created", "recovery_point"])
        last = asyncio.run(self.rest.get_training_run_history_async(self.client.model_id, limit=1)).history
        self.assertEqual(last, history[1:])
        self.assertEqual((last[0].node, last[0].position, last[0].seq_id, last[0].detail["step"]), ("node-1", 4, 5, 2))
        self.assertEqual(last[0].time.isoformat(), "2026-01-02T03:04:06+00:00")
        with self.assertRaises(bios.NotFoundError):
            self.rest.get_training_run_history("nobody-000000000000").result()

    def test_checkpoints_are_listed_and_described(self):
        found = self.rest.list_checkpoints(self.client.model_id).result().checkpoints
        self.assertEqual([c.checkpoint_id for c in found],
                         ["weights/final", "sampler_weights/final", "sampler_weights/eval"])
        self.assertEqual((found[0].name, found[0].metadata, found[0].path), ("final", {"a": 1}, self.state_path))
        self.assertEqual(len(self.rest.list_user_checkpoints().result().checkpoints), 3)
        info = self.rest.get_weights_info_by_bios_path(self.state_path).result()
        self.assertEqual((info.kind, info.step, info.lora_rank, info.metadata), ("training", 1, 8, {"a": 1}))

    def test_a_checkpoint_is_copied(self):
        client = self.service(project_id="archive")
        self.assertTrue(client.copy_weights(self.state_path, ttl_seconds=60).result().endswith("/final"))
        session = self.state.sessions[self.state.calls[-1][2]["session_id"]]["body"]
        self.assertEqual((self.state.calls[-1][2]["ttl_seconds"], session["project_id"]), (60, "archive"))
        first = self.state.calls[-1][2]["model_seq_id"]
        asyncio.run(client.copy_weights_async(self.sampler_path))
        self.assertEqual(self.state.calls[-1][2]["model_seq_id"], first + 1)
        with self.assertRaises(bios.InvalidPathError):
            client.copy_weights("final")

    def test_checkpoints_are_searched_page_by_page(self):
        types = bios.types
        asked = types.CheckpointSearchRequest(
            project_ids=["p"], user_metadata={"who": "me"}, checkpoint_type="sampler", owner=types.UserSearchOwner(["ann"]),
            base_models=(MODEL,), limit=1)
        first = self.rest.search_checkpoints(asked).result()
        self.assertEqual(self.state.calls[-1][2], {
            "project_ids": ["p"], "user_metadata": {"who": "me"}, "checkpoint_type": "sampler", "base_models": [MODEL],
            "owner": {"type": "user", "owner_urns": ["ann"]}, "limit": 1})
        self.assertEqual([c.path for c in first.checkpoints], [self.only_sampler])
        second = asyncio.run(self.rest.search_checkpoints_async(dataclasses.replace(asked, cursor=first.next_cursor)))
        self.assertEqual(self.state.calls[-1][2]["cursor"],
                         {"last_created_at": "2026-01-02T03:04:05.120000+00:00", "last_checkpoint_uuid": "1"})
        self.assertEqual([c.path for c in second.checkpoints], [self.sampler_path])
        self.assertIsNone(second.next_cursor)
        whole = self.rest.search_checkpoints().result()
        self.assertEqual((len(whole.checkpoints), whole.checkpoints[0].base_model), (3, MODEL))
        for field, wrong in (("limit", 201), ("project_ids", "p"), ("user_metadata", {"a": 1}), ("checkpoint_type", "x")):
            with self.assertRaisesRegex(bios.InvalidArgumentError, field):
                types.CheckpointSearchRequest(**{field: wrong})
        with self.assertRaises(bios.InvalidArgumentError):
            types.UserSearchOwner([])

    def test_a_repeated_deletion_deletes_one_thing(self):
        self.state.fault("/checkpoints/weights/final$", "lose")
        self.rest.delete_checkpoint_from_bios_path(self.state_path).result()
        self.assertEqual(sorted(self.state.checkpoints), [(self.client.model_id, "sampler", "eval"),
                                                          (self.client.model_id, "sampler", "final")])
        self.rest.delete_checkpoint(self.client.model_id, "sampler_weights/eval").result()
        with self.assertRaises(bios.NotFoundError):
            self.rest.delete_checkpoint(self.client.model_id, "sampler_weights/eval").result()

    def test_the_rest(self):
        self.rest.set_checkpoint_ttl(self.client.model_id, "weights/final", 60).result()
        self.assertEqual(self.state.checkpoints[(self.client.model_id, "training", "final")]["ttl"], 60)
        asyncio.run(self.rest.set_checkpoint_ttl_from_bios_path_async(self.state_path, None))
        self.assertIsNone(self.state.checkpoints[(self.client.model_id, "training", "final")]["ttl"])
        sessions = self.rest.list_sessions().result().sessions
        self.assertEqual(self.rest.get_session(sessions[0]).result().training_run_ids, [self.client.model_id])


if __name__ == "__main__":
    unittest.main()
