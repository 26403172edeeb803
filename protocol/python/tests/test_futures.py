import asyncio
import concurrent.futures
import copy
import http.server
import pickle
import threading
import unittest
from unittest import mock

from case import MODEL, GatewayCase, bios, datum, types
from bios._threads import DaemonPool


class FuturesTest(GatewayCase):
    def test_a_future_tells_what_it_is_of(self):
        client = self.training()
        future = client.forward_backward([datum()], "cross_entropy")
        self.assertRegex(repr(future), r"^<Future of forward_backward 1 of \S+, \d+ s, pending>$")
        future.result()
        self.assertRegex(repr(future), r"^<Future of forward_backward 1 of \S+, \d+ s, done>$")
        self.state.refuse_operation = None
        failed = client.load_state("bios://usf-finance-abc123abc123/step_1")
        failed.exception()
        self.assertRegex(repr(failed), "failed: RequestFailedError: ")
        rest = self.service().create_rest_client()
        self.assertEqual(repr(rest.list_training_runs()), "<Future of list_training_runs, pending>")
        deleting = rest.delete_checkpoint_from_bios_path("bios://usf-finance-abc123abc123/step_1")
        self.assertRegex(repr(deleting), "^<Future of delete_checkpoint_from_bios_path, ")
        self.assertIsInstance(deleting.exception(), bios.NotFoundError)
        with mock.patch.object(bios.training, "MOST_DATUMS", 2):
            whole = client.forward([datum() for _ in range(5)], "cross_entropy")
        self.assertIn("in 3 parts", repr(whole))

    def test_as_completed_gives_what_is_there_first_and_callbacks_are_called(self):
        client = self.training()
        futures = [client.forward([datum(start=i + 1)], "cross_entropy") for i in range(5)]
        self.assertEqual(set(bios.as_completed(futures)), set(futures))
        self.assertTrue(all(f.done() for f in futures))
        called = threading.Event()
        futures[0].add_done_callback(lambda f: called.set() if f is futures[0] else None)
        self.assertTrue(called.wait(10))
        failed = client.load_state("bios://usf-finance-abc123abc123/step_1")
        self.assertEqual(list(bios.as_completed([failed])), [failed])
        self.assertIsInstance(failed.exception(), bios.RequestFailedError)
        self.assertEqual(list(bios.as_completed([])), [])
        with self.assertLogs("bios", "ERROR"):
            done = threading.Event()

            def wrong(_):
                done.set()
                raise ValueError("mine")

            futures[1].add_done_callback(wrong)
            done.wait(10)
            list(bios.as_completed([futures[2]]))

    def test_results_that_are_long_in_coming_hold_no_thread(self):
        client = self.training()
        late = [client.forward([datum(start=i + 1)], "cross_entropy") for i in range(4)]
        snapshot = client._take_snapshot()  # sampling waits for it
        for future in [*late, snapshot]:
            self.state.pending[future.request_id] = 10 ** 9
        soon = client.forward([datum()], "cross_entropy")

        async def main():
            late.extend(client.sample([i + 1], types.SamplingParams(max_tokens=1)) for i in range(4))
            waiting = [asyncio.ensure_future(future.result_async()) for future in late]
            await asyncio.sleep(0)
            found = await asyncio.wait_for(soon.result_async(), 30)
            for task in waiting:
                task.cancel()
            return found

        with mock.patch.object(bios.futures, "POLL", DaemonPool("poll", 2)):
            self.assertEqual(len(asyncio.run(main()).loss_fn_outputs), 1)
        self.state.pending.clear()
        for future in late:
            future.result()  # ends the polls in the background

    def test_a_timeout_holds_and_a_settled_future_is_told_of_where_no_thread_is_free(self):
        client = self.training()
        future, done = client.save_state("a"), client.save_state("b")
        done.result()
        with mock.patch.object(bios.futures, "POLL", DaemonPool("poll", 0)):
            with self.assertRaisesRegex(bios.APITimeoutError, "wait again"):
                asyncio.run(asyncio.wait_for(future.result_async(timeout=0.01), 30))
            told = []
            done.add_done_callback(told.append)
            self.assertEqual(told, [done])
            self.assertTrue(done.future().done())
        self.assertEqual(future.result().step, 0)

    def test_as_completed_ends_with_its_timeout(self):
        client = self.training()
        future = client.forward([datum()], "cross_entropy")
        self.state.pending[future.request_id] = 10 ** 9
        with self.assertRaisesRegex(bios.APITimeoutError, "did not arrive within"):
            list(bios.as_completed([future], timeout=0))
        self.state.pending.clear()
        future.result()  # ends the poll in the background

    def test_a_sampling_client_is_pickled_without_its_key(self):
        sampler = self.service(api_key="secret").create_sampling_client(base_model=MODEL)
        packed = pickle.dumps(sampler)
        self.assertNotIn(b"secret", packed)
        with mock.patch.dict("os.environ", {"BIOS_API_KEY": "other"}):
            first, second = pickle.loads(packed), pickle.loads(packed)
        self.assertIs(first._session, second._session, "clients of one process share numbers")
        self.clients.append(mock.Mock(close=first._session.close))
        told = [c.sample([1, 2], types.SamplingParams(max_tokens=3, seed=1)).result() for c in (sampler, first, second)]
        self.assertEqual(told[0], told[1])
        numbers = [body["seq_id"] for _, path, body in self.state.calls if path.endswith("/asample")]
        self.assertEqual(len(set(numbers)), 3)
        self.assertGreater(min(numbers[1:]), 1 << 19)

    def test_exceptions_are_pickled_whole(self):
        errors = [bios.InvalidArgumentError("data[3]", "is wrong"), bios.InvalidPathError("x", "no scheme"),
                  bios.NotFoundError(404, b'{"error": "not_found", "message": "no such run", "field": "model_id"}'),
                  bios.RequestFailedError("run:1", "user", "invalid", "it failed"), bios.APITimeoutError("not yet"),
                  bios.MissingExtraError("needs torch"), bios.APIConnectionError("away")]
        for error in errors:
            for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
                self.assertIs(type(again), type(error))
                self.assertEqual((str(again), again.args, vars(again)), (str(error), error.args, vars(error)))

    def test_a_future_is_given_to_the_standard_library(self):
        client = self.training()
        futures = [client.forward([datum(start=i + 1)], "cross_entropy") for i in range(3)]
        failing = client.load_state("bios://usf-finance-abc123abc123/step_1")
        plain = [f.future() for f in futures + [failing]]
        done, left = concurrent.futures.wait(plain, timeout=30)
        self.assertEqual((len(done), len(left)), (4, 0))
        self.assertEqual([f.result() for f in plain[:3]], [f.result() for f in futures])
        with self.assertRaises(bios.RequestFailedError):
            plain[3].result()
        self.assertEqual((futures[0].cancel(), futures[0].cancelled(), futures[0].running()), (False, False, False))

    def test_a_failed_part_names_its_datum_in_the_whole_batch(self):
        client = self.training()
        with mock.patch.object(bios.training, "MOST_DATUMS", 2):
            whole = client.forward_backward([datum() for _ in range(5)], "cross_entropy")
        last = next(reversed(self.state.futures))
        self.state.futures[last] = {"error": "forward_backward_input.data[0].x: is wrong", "category": "user", "code": "invalid"}
        with self.assertRaisesRegex(bios.RequestFailedError, r"data\[4\]\.x: is wrong"):
            whole.result()

    def test_names_of_tinkers_package(self):
        self.assertIs(bios.TinkerError, bios.BiosError)
        self.assertIs(types.ModelInputChunk, types.EncodedTextChunk)
        for name in bios.__all__:
            self.assertTrue(hasattr(bios, name), name)
        for name in types.__all__:
            self.assertTrue(hasattr(types, name), name)
        sampler = self.service().create_sampling_client(base_model=MODEL, retry_config=object())
        self.assertEqual(sampler.get_base_model(), MODEL)
        for name in ("download_checkpoint_archive_from", "delete_checkpoint_from", "get_weights_info_by"):
            self.assertTrue(callable(getattr(bios.RestClient, f"{name}_tinker_path")))


class ForeignServerTest(unittest.TestCase):
    def test_a_refused_part_names_its_datum_in_the_whole_batch(self):
        error = bios.BadRequestError(400, b'{"error": "invalid", "field": "forward_input.data[3].loss_fn_inputs.weights",'
                                          b' "message": "forward_input.data[3].loss_fn_inputs.weights: is wrong"}')
        bios.training._count_from(error, 1024)
        self.assertEqual(error.field, "forward_input.data[1027].loss_fn_inputs.weights")
        self.assertIn("data[1027].loss_fn_inputs.weights: is wrong", str(error))
        self.assertNotIn("data[3]", str(error))

    def test_a_page_is_not_shown_raw(self):
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(404)
                self.end_headers()
                self.wfile.write(b"<!DOCTYPE html><html>much of it</html>")

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with self.assertRaisesRegex(bios.NotFoundError, "no Bios server.*base_url") as caught:
                bios.ServiceClient(base_url=url).get_server_capabilities()
            self.assertNotIn("<", str(caught.exception))
            with self.assertRaisesRegex(bios.APIConnectionError, "does not speak TLS.*http://"):
                bios.ServiceClient(base_url=url.replace("http", "https")).get_server_capabilities()
            server.shutdown()

    def test_what_needs_a_package_names_it(self):
        with mock.patch.dict("sys.modules", {"numpy": None, "torch": None}):
            for call in (types.TensorData([1.0]).to_numpy, types.TensorData([1.0]).to_torch):
                with self.assertRaisesRegex(bios.MissingExtraError, "pip install"):
                    call()


if __name__ == "__main__":
    unittest.main()
