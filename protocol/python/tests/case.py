"""What the tests share."""

import gc
import os
import sys
import threading
import unittest
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "src"), HERE]

import bios  # noqa: E402
from bios import types  # noqa: E402
from fake_gateway import Server, State  # noqa: E402

MODEL = "ultrasafe/usf-finance"


class Naps:
    """A clock that only sleeping moves; sleeping takes no time."""

    def __init__(self):
        self.now, self.naps, self.wake = 0.0, [], lambda nap: None
        self.lock = threading.Lock()

    def clock(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds
            self.naps.append(seconds)
        self.wake(seconds)


def datum(n=4, start=1, weights=True):
    inputs = {"target_tokens": list(range(start + 1, start + 1 + n))}
    if weights:
        inputs["weights"] = [1.0] * n
    return types.Datum(types.ModelInput.from_ints(list(range(start, start + n))), inputs)


class GatewayCase(unittest.TestCase):
    def setUp(self):
        quiet = mock.patch.dict(os.environ, {"BIOS_PROGRESS": "0", "BIOS_CONFIG": os.devnull + "/none"})
        quiet.start()
        self.addCleanup(quiet.stop)
        self.naps = Naps()
        self.state = State()
        self.server = Server(self.state)
        self.addCleanup(self.stop)
        self.clients = []

    def stop(self):
        for client in self.clients:
            client.close()
        self.server.kill()
        gc.collect()

    def service(self, seconds=600.0, **kwargs):
        policy = bios.RetryPolicy(call_seconds=seconds, clock=self.naps.clock, sleep=self.naps.sleep,
                                  chance=lambda: 0.5)
        client = bios.ServiceClient(base_url=self.server.url, retry=policy, **kwargs)
        self.clients.append(client)
        return client

    def training(self, **kwargs):
        return self.service().create_lora_training_client(MODEL, rank=8, **kwargs)

    def run_of(self, client):
        return self.state.runs[client.model_id]

    def restart(self):
        port = self.server.server_address[1]
        self.server.kill()
        return lambda: setattr(self, "server", Server(self.state, port))
