import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

from case import HERE, MODEL, GatewayCase, datum
import bios
from bios import types


def kinds(run):
    return [kind for _, kind, _ in run.operations]


class TrainingTest(GatewayCase):
    def test_operations_keep_the_order_of_the_calls(self):
        client = self.training()
        for _ in range(5):
            client.forward_backward([datum()], "cross_entropy")
            client.optim_step()
        saved = client.save_state("s").result()
        self.assertEqual(saved.step, 5)
        run = self.run_of(client)
        self.assertEqual(kinds(run), ["forward_backward", "optim_step"] * 5 + ["save_weights"])
        self.assertEqual([seq for seq, _, _ in run.operations], list(range(1, 12)))

    def test_two_thousand_unawaited_calls_use_one_connection_and_leave_nothing_behind(self):
        beat = mock.patch.object(bios.session, "HEARTBEAT_SECONDS", 3600.0)  # a slow test would see a heartbeat's connection
        beat.start()
        self.addCleanup(beat.stop)
        client = self.training()
        batch = [datum()]
        before = len(self.server.connections)
        for _ in range(1000):
            client.forward_backward(batch, "cross_entropy")
            client.optim_step()
        self.assertEqual(len(self.run_of(client).operations), 2000)
        self.assertEqual(len(self.server.connections), before)
        gc.collect()
        self.assertEqual([o for o in gc.get_objects() if isinstance(o, bios.Future) and o._transport.policy.clock
                          == self.naps.clock], [])

    def test_a_program_may_end_right_after_its_last_call(self):
        code = ("import bios\n"
                f"c = bios.ServiceClient().create_lora_training_client('{MODEL}')\n"
                "c.save_state(name='0000')\nc.save_state(name='0001')\n")
        env = {**os.environ, "BIOS_BASE_URL": self.server.url, "PYTHONPATH": os.path.join(os.path.dirname(HERE), "src")}
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True,
                              timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(sorted(name for _, _, name in self.state.checkpoints), ["0000", "0001"])

    def test_calls_of_many_threads_take_turns(self):
        client = self.training()
        threads = [threading.Thread(target=lambda: [client.forward_backward([datum()], "cross_entropy")
                                                    for _ in range(20)]) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([seq for seq, _, _ in self.run_of(client).operations], list(range(1, 161)))

    def test_the_twins_keep_the_order_in_which_they_began(self):
        client = self.training()

        async def main():
            wanted = []
            calls = []
            for i in range(40):
                calls += [client.forward_backward_async([datum()], "cross_entropy"), client.optim_step_async(),
                          client.save_state_async(f"s{i}")]
                wanted += ["forward_backward", "optim_step", "save_weights"]
            futures = await asyncio.gather(*calls)
            results = [await f for f in futures]
            self.assertEqual([r.step for r in results[2::3]], list(range(1, 41)))
            return wanted

        wanted = asyncio.run(main())
        self.assertEqual(kinds(self.run_of(client)), wanted)

    def test_a_cancelled_twin_passes_its_turn_on(self):
        client = self.training()

        async def main():
            task = asyncio.ensure_future(client.forward_backward_async([datum()], "cross_entropy"))
            await asyncio.sleep(0)
            task.cancel()
            return await (await client.save_state_async("after"))

        self.assertEqual(asyncio.run(main()).step, 0)

    def gated(self, path):
        """A transport whose calls of a path wait until the returned event is set."""
        call, opened = bios._transport.Transport.call, threading.Event()

        def waits(transport, method, at, *args, **kwargs):
            if at == path and not opened.wait(30):
                raise AssertionError("nobody went on meanwhile")
            return call(transport, method, at, *args, **kwargs)

        gate = mock.patch.object(bios._transport.Transport, "call", waits)
        gate.start()
        self.addCleanup(gate.stop)
        return opened

    def test_a_call_in_an_event_loop_does_not_stop_it(self):
        client = self.training()
        opened = self.gated("/forward_backward")

        async def main():
            passed, stepped = client.forward_backward([datum()], "cross_entropy"), client.optim_step()
            sampled = client.sample([1, 2], types.SamplingParams(max_tokens=2))
            self.assertFalse(passed.done())
            self.assertIsNone(passed.request_id)
            self.assertIn("being sent", repr(stepped))
            with self.assertRaises(bios.APITimeoutError):
                await passed.result_async(timeout=0.01)
            opened.set()
            self.assertEqual(len((await sampled).sequences), 1)
            self.assertEqual((await stepped.coroutine()).step, 1)
            self.assertEqual(len(passed.result().loss_fn_outputs), 1)
            self.assertTrue(passed.request_id.endswith(":1"))
            self.assertTrue(passed.done())

        asyncio.run(main())
        self.assertEqual(kinds(self.run_of(client)), ["forward_backward", "optim_step", "save_weights_for_sampler"])

    def test_calls_of_an_event_loop_and_of_threads_keep_their_order(self):
        client = self.training()
        opened = self.gated("/save_weights")

        async def main():
            futures, threads = [], []
            for i in range(20):
                futures.append(client.save_state(f"loop-{i}"))
                thread = threading.Thread(target=client.save_state, args=(f"thread-{i}",))
                thread.start()
                threads.append(thread)
                while client._queue.waiting < 2 * i + 2:
                    await asyncio.sleep(0)
            opened.set()
            for future in reversed(futures):
                await future
            for thread in threads:
                thread.join()

        asyncio.run(main())
        self.assertEqual([(seq, body["path"]) for seq, _, body in self.run_of(client).operations],
                         [(i + 1, ("loop-%d", "thread-%d")[i % 2] % (i // 2)) for i in range(40)])

    def test_a_call_in_an_event_loop_that_is_refused_or_interrupted_leaves_the_run_usable(self):
        client = self.training()
        self.state.refuse_operation = lambda kind, body: kind == "forward_backward"

        async def main():
            refused = client.forward_backward([datum()], "cross_entropy")
            with self.assertRaises(bios.BadRequestError):
                await refused
            self.assertIsInstance(refused.exception(), bios.BadRequestError)
            with self.assertRaisesRegex(bios.InvalidArgumentError, "data"):
                client.forward_backward([], "cross_entropy")
            with mock.patch.object(bios._threads.SUBMIT, "keep", side_effect=KeyboardInterrupt), \
                    self.assertRaises(KeyboardInterrupt):
                client.optim_step()
            self.state.refuse_operation = None
            client.forward_backward([datum()], "cross_entropy")
            with mock.patch.object(bios.training, "MOST_SUBMITTING", 0):
                self.assertIsNotNone(client.optim_step().request_id, "a call waits where too many do")
            return await client.save_state("s")

        self.assertEqual(asyncio.run(main()).step, 1)

    def test_clients_are_awaited_and_asked_for_as_results(self):
        async def main():
            service = self.service()
            client = await service.create_lora_training_client(MODEL, rank=8)
            sampler = await client.save_weights_and_get_sampling_client()
            self.assertEqual(len((await sampler.sample([1, 2], types.SamplingParams(max_tokens=2))).sequences), 1)
            self.assertEqual(len(await sampler.compute_logprobs([1, 2])), 2)
            self.assertEqual((await (await service.create_rest_client()).whoami()).account, "ann")
            self.assertIs(client.result(), client)

        asyncio.run(main())

    def test_a_large_batch_goes_in_parts_with_consecutive_numbers_and_comes_back_whole(self):
        client = self.training()
        data = [datum(2, start=i % 50) for i in range(2500)]
        found = client.forward_backward(data, "cross_entropy").result()
        run = self.run_of(client)
        self.assertEqual([(seq, len(b["forward_backward_input"]["data"])) for seq, _, b in run.operations],
                         [(1, 1024), (2, 1024), (3, 452)])
        self.assertEqual(len(found.loss_fn_outputs), 2500)
        self.assertEqual(found.metrics["tokens:sum"], 5000)
        whole = client.forward(data[:1], "cross_entropy").result()
        self.assertEqual(whole.loss_fn_outputs[0], found.loss_fn_outputs[0])

    def test_parts_stay_below_four_megabytes(self):
        client = self.training()
        data = [datum(20000) for _ in range(12)]  # about 430 kB each
        client.forward_backward(data, "cross_entropy").result()
        sizes = [len(b["forward_backward_input"]["data"]) for _, _, b in self.run_of(client).operations]
        self.assertEqual(sum(sizes), 12)
        self.assertGreater(len(sizes), 1)
        lengths = [int(h["Content-Length"]) for h, c in zip(self.state.headers, self.state.calls)
                   if c[1] == "/forward_backward"]
        self.assertLess(max(lengths), 4_100_000)

    def test_a_refused_part_says_what_was_taken_before_it(self):
        client = self.training()
        self.state.refuse_operation = lambda kind, body: body["seq_id"] == 2
        with self.assertRaisesRegex(bios.BadRequestError, "first 1024 of 1500 datums .* drops their gradient"):
            client.forward_backward([datum()] * 1500, "cross_entropy")
        self.assertTrue(self.run_of(client).operations[1][2]["part"])
        with self.assertRaisesRegex(bios.RequestFailedError, "refused by the test"):
            client.optim_step().result()

    def test_a_batch_whose_call_ends_between_its_parts_is_never_applied_in_part(self):
        exchange = bios._transport.Transport.exchange
        parts = mock.patch.object(bios.training, "MOST_DATUMS", 2)
        parts.start()
        self.addCleanup(parts.stop)
        for ended in (KeyboardInterrupt(), bios.APIConnectionError("the server is away")):
            for at, after in ((1, False), (1, True), (2, False), (2, True)):
                client = self.training()
                calls = []

                def ends(transport, method, path, *args, **kwargs):
                    calls.append(path)
                    if path != "/forward_backward" or calls.count(path) != at:
                        return exchange(transport, method, path, *args, **kwargs)
                    if after:  # the part was accepted, and its answer did not come
                        exchange(transport, method, path, *args, **kwargs)
                    raise ended

                with mock.patch.object(bios._transport.Transport, "exchange", ends), self.assertRaises(type(ended)):
                    client.forward_backward([datum()] * 3, "cross_entropy")
                client.save_state("between").result()  # saves no gradient
                again = client.forward_backward([datum()] * 3, "cross_entropy")
                self.assertIsNotNone(again.exception())
                with self.assertRaisesRegex(bios.RequestFailedError, "send the whole batch again"):
                    client.optim_step().result()
                client.forward_backward([datum()] * 3, "cross_entropy").result()
                self.assertEqual(client.optim_step().result().step, 1)
                marks = [body for _, _, body in self.run_of(client).operations if body.get("part")]
                self.assertEqual(len(marks), 1, "said once")

    def test_a_server_that_fails_between_the_parts_is_like_none(self):
        client = self.service(seconds=5.0).create_lora_training_client(MODEL)
        self.state.fault("^/forward_backward$", (503, {}), 10 ** 9)
        with self.assertRaises(bios.InternalServerError):
            client.forward_backward([datum()] * 1500, "cross_entropy")
        self.state.faults.clear()
        with self.assertRaisesRegex(bios.RequestFailedError, "send the whole batch again"):
            client.optim_step().result()
        self.assertEqual(client.load_state(client.save_state("s").result().path).result().step, 0)

    def test_a_refused_call_leaves_a_gap_and_the_run_goes_on(self):
        client = self.training()
        self.state.refuse_operation = lambda kind, body: body["seq_id"] == 1
        with self.assertRaises(bios.BadRequestError) as caught:
            client.forward_backward([datum()], "cross_entropy")
        self.assertEqual((caught.exception.field, caught.exception.code, caught.exception.status),
                         ("data[0]", "invalid", 400))
        client.forward_backward([datum()], "cross_entropy").result()
        self.assertEqual([seq for seq, _, _ in self.run_of(client).operations], [2])

    def test_a_failed_operation_fails_its_future_and_those_that_build_on_it(self):
        client = self.training()
        first = client.optim_step()
        second = client.save_state("s")
        for future in (second, first):
            with self.assertRaises(bios.RequestFailedError) as caught:
                future.result()
            self.assertEqual((caught.exception.code, caught.exception.category), ("nothing_to_apply", "user"))
        self.assertIsInstance(first.exception(), bios.RequestFailedError)
        self.assertEqual(client.save_state("t").result().step, 0)

    def test_a_failure_of_the_service_is_asked_for_again(self):
        client = self.training()
        future = client.forward_backward([datum()], "cross_entropy")
        wanted = future.result()
        waiting = client.forward_backward([datum()], "cross_entropy")
        deadline = time.monotonic() + 10
        while waiting.request_id is None and time.monotonic() < deadline:
            time.sleep(0.01)
        good = self.state.futures[waiting.request_id]
        self.state.futures[waiting.request_id] = {"error": "it is set aside", "category": "server", "code": "worker_lost"}
        for _ in range(2):
            with self.assertRaisesRegex(bios.RequestFailedError, "set aside"):
                waiting.result()
        self.state.futures[waiting.request_id] = good
        self.assertEqual(len(waiting.result().loss_fn_outputs), len(wanted.loss_fn_outputs))

    def test_optim_step_without_settings_sends_none(self):
        client = self.training()
        for params in (types.AdamParams(learning_rate=3e-4), None):
            client.forward_backward([datum()], "cross_entropy")
            found = client.optim_step(params).result()
            self.assertEqual(found.metrics["learning_rate"], 3e-4)
        bodies = [b for _, kind, b in self.run_of(client).operations if kind == "optim_step"]
        self.assertEqual(bodies[0]["adam_params"]["beta2"], 0.95)
        self.assertNotIn("adam_params", bodies[1])

    def test_train_gives_the_mean_loss_per_weight(self):
        client = self.training()
        found = client.train([datum(3), datum(3)], learning_rate=2e-4, weight_decay=0.1, grad_clip=1.0)
        self.assertEqual(found.step, 1)
        self.assertAlmostEqual(found.loss, found.metrics["loss:sum"] / 6)
        self.assertEqual(found.metrics["grad_norm"], 1.5)
        sent = self.run_of(client).operations[1][2]["adam_params"]
        self.assertEqual((sent["learning_rate"], sent["weight_decay"], sent["grad_clip_norm"]), (2e-4, 0.1, 1.0))
        self.assertEqual(asyncio.run(client.train_async([datum()])).step, 2)
        with self.assertRaisesRegex(ValueError, "momentum"):
            client.train([datum()], momentum=0.9)

    def test_metadata_comes_back_as_it_went(self):
        client = self.training()
        metadata = {"step": 1, "loss": 0.5, "tags": ["a", None], "config": {"deep": {"x": True}}}
        self.assertEqual(client.save_state("a", metadata=metadata).result().metadata, metadata)
        self.assertEqual(client.save_state("b").result().metadata, {})

    def test_metadata_that_json_cannot_carry_is_refused_and_nothing_sent(self):
        client = self.training()
        seen = len(self.state.calls)
        for wrong, field in (({"x": object()}, "metadata.x"), ({"x": [float("nan")]}, r"metadata.x\[0\]"),
                             ({1: 2}, "metadata"), ([], "metadata")):
            with self.assertRaisesRegex(bios.InvalidArgumentError, field):
                client.save_state("a", metadata=wrong)
        self.assertEqual(len(self.state.calls), seen)

    def test_wrong_arguments_are_named_and_nothing_sent(self):
        client = self.training()
        seen = len(self.state.calls)
        for call, field in (
                (lambda: client.load_state("s3://x/y"), "path"),
                (lambda: client.load_state("bios://onlyone"), "path"),
                (lambda: client.load_state("bios://run/other/name"), "path"),
                (lambda: client.save_state("a/b"), "name"),
                (lambda: client.save_state("weights"), "name"),
                (lambda: client.save_state(7), "name"),
                (lambda: client.save_state("a", ttl_seconds=0), "ttl_seconds"),
                (lambda: client.optim_step(1e-4), "adam_params"),
                (lambda: client.forward_backward([], "cross_entropy"), "data"),
                (lambda: client.forward_backward([1], "cross_entropy"), r"data\[0\]"),
                (lambda: client.forward_backward([datum()], print), "loss_fn"),
                (lambda: client.forward_backward([types.Datum([1, 2], {"target_tokens": [1]})], "cross_entropy"),
                 r"data\[0\].loss_fn_inputs.target_tokens"),
                (lambda: client.sample("text"), "prompt"),
                (lambda: client.sample([1], {"max_tokens": 3}), "sampling_params")):
            with self.assertRaisesRegex(bios.InvalidArgumentError, "^" + field):
                call()
        with self.assertRaises(bios.InvalidPathError) as caught:
            client.load_state("nonsense")
        self.assertIsInstance(caught.exception, ValueError)
        self.assertEqual(len(self.state.calls), seen)

    def test_loading_puts_the_run_back(self):
        client = self.training()
        path = client.save_state("zero").result().path
        client.forward_backward([datum()], "cross_entropy")
        client.optim_step()
        client.load_state(path)
        self.assertEqual(client.save_state("again").result().step, 0)
        self.assertEqual(client.load_state_with_optimizer(path).result().step, 0)

    def test_a_training_client_is_made_from_a_path_alone(self):
        client = self.training()
        client.train([datum()])
        path = client.save_state("one").result().path
        other = self.service().load_training_client(path)
        self.assertNotEqual(other.model_id, client.model_id)
        self.assertEqual(other.save_state("two").result().step, 1)
        fresh = self.service().create_training_client_from_state(path)
        self.assertFalse(self.run_of(fresh).operations[0][2]["optimizer"])
        self.assertEqual(self.run_of(fresh).metadata, None)
        for named in (self.service().create_training_client_from_state(path, MODEL, {"who": "me"}),
                      self.service().create_training_client_from_state(path, base_model=MODEL, user_metadata={"who": "me"}),
                      self.service().create_training_client_from_state(path, {"who": "me"})):
            self.assertEqual(self.run_of(named).metadata, {"who": "me"})
            self.assertFalse(self.run_of(named).operations[0][2]["optimizer"])
        kept = self.service().create_training_client_from_state_with_optimizer(path, MODEL)
        self.assertTrue(self.run_of(kept).operations[0][2]["optimizer"])
        with self.assertRaises(bios.RequestFailedError):  # the checkpoint is of another base model
            self.service().create_training_client_from_state(path, "tiny")
        with self.assertRaisesRegex(bios.InvalidArgumentError, "weights_access_token"):
            self.service().create_training_client_from_state(path, weights_access_token="x")
        with self.assertRaises(bios.NotFoundError):
            self.service().load_training_client("bios://nobody-000000000000/x")

    def test_a_model_that_is_not_served_is_named_with_those_that_are(self):
        with self.assertRaisesRegex(bios.NotFoundError, "base_model.*served are"):
            self.service().create_lora_training_client("nobody/none")

    def test_get_info_and_tokenizer(self):
        client = self.training()
        self.assertEqual(client.get_info().model_name, MODEL)
        tokenizer = client.get_tokenizer()
        self.assertEqual(tokenizer.decode(tokenizer.encode("grüße")), "grüße")
        self.assertEqual(tokenizer.decode([]), "")
        self.assertIs(client.get_tokenizer(), tokenizer)
        self.assertEqual(client.unload_model().result().model_id, client.model_id)

    def test_a_missing_torch_is_said_before_anything_is_sent(self):
        try:
            import torch  # noqa: F401
        except ImportError:
            pass
        else:
            self.skipTest("torch is here")
        client = self.training()
        seen = len(self.state.calls)
        with self.assertRaises(bios.MissingExtraError):
            client.forward_backward_custom([datum()], lambda data, logprobs: (0, {}))
        self.assertEqual(len(self.state.calls), seen)

    def test_a_custom_loss_sends_its_gradient_as_weights(self):
        try:
            import torch
        except ImportError:
            self.skipTest("needs torch")
        client = self.training()
        found = client.forward_backward_custom(
            [datum()], lambda data, logprobs: ((logprobs[0] ** 2).sum(), {"mine": 2.0})).result()
        self.assertEqual(found.metrics["mine"], 2.0)
        for named in ({"loss_fn": lambda data, logprobs: (logprobs[0].sum(), {"mine": 3.0}), "loss_type_input": "logprobs"},
                      {"fn": lambda data, logprobs: (logprobs[0].sum(), {"mine": 3.0})}):
            self.assertEqual(self.training().forward_backward_custom([datum()], **named).result().metrics["mine"], 3.0)
        with self.assertRaisesRegex(bios.InvalidArgumentError, "loss_type_input"):
            client.forward_backward_custom([datum()], lambda data, logprobs: None, loss_type_input="logits")
        sent = self.run_of(client).operations[1][2]["forward_backward_input"]["data"][0]["loss_fn_inputs"]["weights"]
        with self.assertRaisesRegex(bios.BiosError, "may not call its training client"):
            client.forward_backward_custom([datum()], lambda data, logprobs: client.optim_step())
        expected = -2 * found.loss_fn_outputs[0]["logprobs"].to_torch()
        self.assertTrue(torch.allclose(types.TensorData.from_wire(sent).to_torch(), expected))


if __name__ == "__main__":
    unittest.main()
