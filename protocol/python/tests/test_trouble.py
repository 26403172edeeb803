"""Servers that die, refuse and dawdle."""

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import unittest
from unittest import mock

from case import HERE, MODEL, GatewayCase, datum
import bios
from bios import _transport, types


class TroubleTest(GatewayCase):
    def test_a_call_is_repeated_until_it_is_answered_and_takes_effect_once(self):
        client = self.training()
        for action in ("drop", "lose", (503, {}), (429, {"Retry-After": "2"}), (408, {}), (500, {}), (502, {})):
            self.state.fault("^/forward_backward$", action, 2)
            self.state.fault("^/optim_step$", action)
            client.forward_backward([datum()], "cross_entropy")
            client.optim_step().result()
        self.assertEqual(client.save_state("s").result().step, 7)
        self.assertEqual(len(self.run_of(client).operations), 15)
        self.assertEqual([n for n in self.naps.naps if 2.0 <= n < 3.0].__len__(), 3)  # Retry-After was heeded

    def test_results_are_asked_for_until_they_come(self):
        client = self.training()
        self.state.polls_before_result = 3
        for action in ("drop", "lose", (503, {}), (429, {"Retry-After": "1"}), (500, {})):
            self.state.fault("^/retrieve_future$", action, 3)
            client.forward_backward([datum()], "cross_entropy")
            client.optim_step().result()
        self.assertEqual(self.run_of(client).step, 5)

    def test_a_session_and_a_run_are_made_once_however_often_they_are_asked_for(self):
        for path in ("/create_session", "/create_model", "/load_training_client", "/create_sampling_session"):
            self.state.fault("^" + path + "$", "lose", 2)
        service = self.service()
        client = service.create_lora_training_client(MODEL)
        other = service.load_training_client(client.save_state("s").result().path)
        service.create_sampling_client(base_model="tiny")
        self.assertEqual((len(self.state.sessions), len(self.state.runs), len(self.state.samplers)), (1, 2, 1))
        self.assertNotEqual(client.model_id, other.model_id)

    def test_a_killed_server_is_only_slow(self):
        client = self.training()
        client.forward_backward([datum()], "cross_entropy")
        waiting = client.optim_step()
        start = self.restart()
        self.naps.wake = lambda nap: start() if len(self.naps.naps) == 40 else None
        self.assertEqual(waiting.result().step, 1)
        start = self.restart()
        self.naps.wake = lambda nap: start() if len(self.naps.naps) == 80 else None
        client.forward_backward([datum()], "cross_entropy")
        self.assertEqual(client.train([datum()]).step, 2)

    def test_a_connection_that_the_server_closed_meanwhile_is_no_trouble(self):
        client = self.training()
        for connection in self.server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.assertEqual(client.save_state("s").result().step, 0)
        self.assertEqual(self.naps.naps, [])

    def test_patience_ends_after_the_time_that_was_set(self):
        service = self.service(seconds=30.0)
        self.server.kill()
        with self.assertRaisesRegex(bios.APIConnectionError, "no answer from http://127.0.0.1"):
            service.get_server_capabilities()
        self.assertGreaterEqual(self.naps.now, 30.0)
        self.assertLess(self.naps.now, 40.0)

    def test_an_answer_of_5xx_to_the_end_is_raised_as_it_is(self):
        service = self.service(seconds=5.0)
        self.state.fault("capabilities", (503, {}), 1000)
        with self.assertRaises(bios.InternalServerError) as caught:
            service.get_server_capabilities()
        self.assertEqual(caught.exception.status, 503)

    def test_a_full_queue_is_no_outage(self):
        service = self.service(seconds=5.0)
        self.state.fault("capabilities", (503, {}))
        self.state.fault("capabilities", (429, {"Retry-After": "30"}), 20)
        self.state.fault("capabilities", (503, {}))
        service.get_server_capabilities()
        self.assertGreater(self.naps.now, 600)

    def test_refusals_are_not_repeated(self):
        for status, kind in ((400, bios.BadRequestError), (401, bios.AuthenticationError),
                             (403, bios.PermissionDeniedError), (404, bios.NotFoundError), (409, bios.ConflictError),
                             (413, bios.RequestTooLargeError), (422, bios.UnprocessableEntityError)):
            self.state.fault("capabilities", (status, {}))
            seen = len(self.state.calls)
            with self.assertRaisesRegex(kind, "trouble on order"):
                self.service().get_server_capabilities()
            self.assertEqual(len(self.state.calls), seen + 1)

    def test_an_interrupt_leaves_the_run_usable(self):
        client = self.training()
        future = client.forward_backward([datum()], "cross_entropy")
        exchange = bios._transport.Transport.exchange
        for at, after in (("/retrieve_future", False), ("/forward_backward", False), ("/forward_backward", True),
                          ("/optim_step", True), ("/save_weights_for_sampler", False)):
            left = [1]
            client.forward_backward([datum()], "cross_entropy").result()
            if at == "/save_weights_for_sampler":
                client.optim_step().result()

            def interrupted(transport, method, path, *args, **kwargs):
                if path != at or not left:
                    return exchange(transport, method, path, *args, **kwargs)
                left.clear()
                if after:  # Ctrl-C amid the answer
                    exchange(transport, method, path, *args, **kwargs)
                raise KeyboardInterrupt

            call = {"/retrieve_future": future.result, "/optim_step": client.optim_step,
                    "/forward_backward": lambda: client.forward_backward([datum()], "cross_entropy"),
                    "/save_weights_for_sampler": lambda: client.sample([1, 2], types.SamplingParams(max_tokens=2))}[at]
            with mock.patch.object(bios._transport.Transport, "exchange", interrupted):
                with self.assertRaises(KeyboardInterrupt):
                    call()
            client.forward_backward([datum()], "cross_entropy").result()
            self.assertGreater(client.optim_step().result().step, 0)
            self.assertEqual(len(client.sample([1, 2], types.SamplingParams(max_tokens=2)).result().sequences), 1)
        self.assertGreater(future.result().metrics["loss:sum"], 0)

    def test_a_timeout_leaves_the_future_usable(self):
        client = self.training()
        self.state.polls_before_result = 10 ** 9
        future = client.save_state("s")
        with self.assertRaises(TimeoutError) as caught:
            future.result(timeout=0.5)
        self.assertIsInstance(caught.exception, bios.APITimeoutError)
        self.assertFalse(future.done())
        self.state.pending[future.request_id] = 0
        self.assertEqual(future.result().step, 0)
        self.assertTrue(future.done())
        self.assertEqual(future.result().step, 0)

    def test_done_asks_in_the_background(self):
        client = self.training()
        future = client.save_state("s")
        future.done()
        while not future.done():
            threading.Event().wait(0.005)
        self.assertEqual(future.result().step, 0)

    def test_one_future_may_be_asked_by_many(self):
        client = self.training()
        self.state.polls_before_result = 5
        future = client.save_state("s")

        async def main():
            return await asyncio.gather(*[future.result_async() for _ in range(20)], future.result_async(timeout=1e9))

        self.assertEqual({r.path for r in asyncio.run(main())}, {future.result().path})

    def test_a_lost_training_result_is_an_error(self):
        client = self.training()
        future = client.save_state("s")
        self.state.lost.add(future.request_id)
        with self.assertRaises(bios.APIStatusError) as caught:
            future.result()
        self.assertEqual(caught.exception.status, 410)

    def test_waiting_people_are_told_once_a_minute(self):
        client = self.training()
        self.state.fault("^/retrieve_future$", (503, {}), 60)
        err = io.StringIO()
        with mock.patch.dict(os.environ, {"BIOS_PROGRESS": "1"}), mock.patch.object(_transport.Notice, "_told", -1e18), \
                contextlib.redirect_stderr(err), \
                self.assertLogs("bios", "INFO") as logs:
            client.save_state("s").result()
        lines = err.getvalue().splitlines()
        self.assertGreater(self.naps.now, 100)
        self.assertTrue(1 < len(lines) <= self.naps.now / 60 + 1, lines)
        self.assertTrue(all(line.startswith("bios: waiting for http://") for line in lines))
        self.assertGreater(len(logs.output), len(lines))

    def test_an_answer_that_is_no_json_is_said_plainly(self):
        client = self.training()
        with mock.patch.object(self.state, "post_save_weights", lambda body: b"<html>"):
            with self.assertRaisesRegex(bios.APIResponseError, "not JSON"):
                client.save_state("s")

    def test_the_key_travels_in_its_header_and_no_key_is_fine(self):
        with mock.patch.dict(os.environ, {"BIOS_API_KEY": "from-env", "BIOS_BASE_URL": self.server.url + "/"}):
            first, second = bios.ServiceClient(), bios.ServiceClient(api_key="given")
        third = self.service()
        self.assertEqual(self.state.calls, [])  # constructing costs nothing
        for client in (first, second, third):
            self.clients.append(client)
            client.get_server_capabilities()
        self.assertEqual([h.get("X-API-Key") for h in self.state.headers], ["from-env", "given", None])
        self.assertIn("application/vnd.bios+json", self.state.headers[0]["Accept"])

    def test_addresses_that_cannot_be_are_refused(self):
        for url in ("127.0.0.1:8400", "ftp://x", "http://", "http://x:y", "http://x?y=1"):
            with self.assertRaises(bios.InvalidArgumentError):
                bios.ServiceClient(base_url=url)

    def test_of_several_addresses_the_next_is_asked_when_one_is_silent(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{silent.getsockname()[1]}"
            policy = bios.RetryPolicy(clock=self.naps.clock, sleep=self.naps.sleep, chance=lambda: 0.5)
            client = bios.ServiceClient(base_url=f"{dead}, {self.server.url}/", retry=policy)
            self.clients.append(client)
            self.assertEqual(client.base_url, f"{dead},{self.server.url}")
            client.get_server_capabilities()
            client.get_server_capabilities()
        self.assertEqual(len(self.naps.naps), 1)  # the second call began where the first one ended

    def run_program(self, code):
        env = {**os.environ, "BIOS_BASE_URL": self.server.url, "PYTHONPATH": os.path.join(os.path.dirname(HERE), "src")}
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)

    def test_a_program_ends_when_the_calls_that_change_something_are_answered(self):
        path = self.training().save_state("s").result().path
        run = next(iter(self.state.runs))
        self.state.fault("^/(copy_weights|save_weights)$", (503, {}), 2)
        self.state.fault("/ttl$", (503, {}), 2)
        done = self.run_program(
            "import asyncio, bios\n"
            "s = bios.ServiceClient()\n"
            f"s.copy_weights('{path}')\n"
            f"s.create_rest_client().set_checkpoint_ttl_from_bios_path('{path}', 77)\n"
            f"c = s.create_lora_training_client('{MODEL}')\n"
            "async def main():\n"
            "    c.save_state('a')\n"
            "    c.save_state('b')\n"
            "asyncio.run(main())\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.state.checkpoints[run, "training", "s"]["ttl"], 77)
        self.assertTrue({"/copy_weights", "/save_weights"} <= {at for _, at, _ in self.state.calls})
        self.assertEqual(sorted(name for _, _, name in self.state.checkpoints), ["a", "b", "s"])

    def test_a_program_says_what_it_has_not_waited_for(self):
        path = self.training().save_state("s").result().path
        self.state.fault("/ttl$", (503, {}), 10 ** 9)
        done = self.run_program(
            "import bios\n"
            "bios._threads.EXIT_SECONDS = 0.01\n"
            f"bios.ServiceClient().create_rest_client().set_checkpoint_ttl_from_bios_path('{path}', 77)\n")
        self.assertEqual((done.returncode, done.stderr),
                         (0, "bios: the program ends before 1 of its calls have been answered\n"))

    def test_a_waiting_thread_does_not_keep_the_program_alive(self):
        self.state.polls_before_result = 10 ** 9
        code = ("import asyncio, bios\n"
                "c = bios.ServiceClient().create_rest_client()\n"
                "c.list_sessions().done()\n"
                "async def main():\n"
                "    s = bios.ServiceClient().create_sampling_client(base_model='tiny')\n"
                "    t = asyncio.ensure_future(s.sample_async([1]))\n"
                "    await asyncio.sleep(0.1)\n"
                "asyncio.run(main())\n")
        done = self.run_program(code)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_forked_process_has_a_session_runs_and_threads_of_its_own(self):
        code = ("import asyncio, os, signal, sys, bios\n"
                "service = bios.ServiceClient()\n"
                "sampler = service.create_sampling_client(base_model='tiny')\n"
                "sampler.sample([1]).result()\n"
                "asyncio.run(sampler.sample_async([1]))\n"
                "service.create_rest_client().whoami().result()\n"  # leaves idle threads
                "def work(n):\n"
                "    signal.alarm(30)\n"
                f"    client = service.create_lora_training_client('{MODEL}')\n"
                "    client.save_state(f'of-{n}')\n"
                "    service.create_rest_client().whoami().result()\n"
                "    asyncio.run(sampler.sample_async([1]))\n"
                "children = []\n"
                "for n in range(2):\n"
                "    child = os.fork()\n"
                "    if child == 0:\n"
                "        work(n)\n"
                "        os._exit(0)\n"
                "    children.append(child)\n"
                "ended = [os.waitpid(child, 0)[1] for child in children]\n"
                "work(2)\n"
                "sys.exit(any(ended))\n")
        env = {**os.environ, "BIOS_BASE_URL": self.server.url, "PYTHONPATH": os.path.join(os.path.dirname(HERE), "src")}
        done = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], env=env, capture_output=True,
                              text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((len(self.state.sessions), len(self.state.runs)), (3, 3))
        self.assertEqual([len(run.operations) for run in self.state.runs.values()], [1, 1, 1])
        numbers = [body["seq_id"] for _, path, body in self.state.calls if path == "/asample"]
        self.assertEqual(len(set(numbers)), 5)

    def test_the_heart_beats_while_a_client_lives(self):
        with mock.patch("bios.session.HEARTBEAT_SECONDS", 0.01):
            client = self.training()
            while self.state.heartbeats < 2:
                threading.Event().wait(0.005)
            beating = [t for t in threading.enumerate() if t.name == "bios-heartbeat"][-1]
            self.assertTrue(beating.daemon)
            del client
            self.clients.clear()
            import gc
            gc.collect()
            beating.join(timeout=30)
            self.assertFalse(beating.is_alive())


if __name__ == "__main__":
    unittest.main()
