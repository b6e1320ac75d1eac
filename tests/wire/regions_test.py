#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Regions with the stock client: what it registers, uses and unregisters, and who gives back the regions of clients that do not.
import multiprocessing
import os
import signal
import tempfile

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import shared_memory

import server_process
from server_process import Server
from triton_fixture import CHANNEL, TritonTest

NUM_BYTES = 1 << 16


def register_and_wait(address, name, registered, hold):
    """Of another process: registers a region of its own, and then does nothing until `hold` is released."""
    shared_memory.create_shared_memory_region(name, f"/{name}", NUM_BYTES)
    triton.InferenceServerClient(address, channel_args=CHANNEL).register_system_shared_memory(name, f"/{name}", NUM_BYTES)
    registered.release()
    hold.acquire()


class AbandonedTest(server_process.unittest.TestCase):
    """A client that is killed with a region registered."""

    def setUp(self):
        self.name = f"swiglu_abandoned_{os.getpid()}"
        self.context = multiprocessing.get_context("spawn")
        self.hold = self.context.Semaphore(0)
        self.addCleanup(lambda: os.path.exists(f"/dev/shm/{self.name}") and os.unlink(f"/dev/shm/{self.name}"))

    def start_client(self, address):
        registered = self.context.Semaphore(0)
        client = self.context.Process(target=register_and_wait, args=(address, self.name, registered, self.hold))
        client.start()
        self.assertTrue(registered.acquire(timeout=server_process.DEADLINE_S))
        return client

    def kill(self, client):
        os.kill(client.pid, signal.SIGKILL)
        client.join()

    def test_server_on_a_unix_socket_gives_its_region_back(self):
        with tempfile.TemporaryDirectory() as folder:
            with Server("--system_shared_memory=on", f"--grpc_address=unix:{folder}/socket") as server:
                client = self.start_client(server.address)
                server.wait_for_metric(1, "swiglu_regions", memory="system")
                self.kill(client)
                server.wait_for_metric(0, "swiglu_regions", memory="system")
                server.wait_for_metric(0, "swiglu_memory_used_bytes", kind="region")

    def test_server_gives_an_idle_region_back(self):
        with Server("--system_shared_memory=on", "--region_idle_timeout=1s") as server:
            client = self.start_client(server.address)
            self.kill(client)
            server.wait_for_metric(0, "swiglu_regions", memory="system")


class RegionsTest(TritonTest):
    SERVER_FLAGS = ("--system_shared_memory=on", f"--system_shared_memory_prefix=swiglu_regions_{os.getpid()}")

    def setUp(self):
        super().setUp()
        self.name = f"swiglu_regions_{os.getpid()}_{self.id().rpartition('.')[2]}"
        self.region = shared_memory.create_shared_memory_region(self.name, f"/{self.name}", NUM_BYTES)
        self.addCleanup(shared_memory.destroy_shared_memory_region, self.region)
        self.addCleanup(self.client.unregister_system_shared_memory)

    def register(self, name="r", **arguments):
        self.client.register_system_shared_memory(name, arguments.get("key", f"/{self.name}"), NUM_BYTES)

    def infer(self, region="r", count=8):
        inputs = [triton.InferInput(name, [count], "FP32") for name in ("e", "g")]
        inputs[0].set_shared_memory(region, 4 * count)
        inputs[1].set_shared_memory(region, 4 * count, offset=4 * count)
        output = triton.InferRequestedOutput("h")
        output.set_shared_memory(region, 4 * count, offset=8 * count)
        return self.client.infer("swiglu_forward_fp32", inputs, outputs=[output])

    def test_values_are_right(self):
        self.register()
        e, g = np.arange(8, dtype=np.float32), np.ones(8, dtype=np.float32)
        shared_memory.set_shared_memory_region(self.region, [e, g])
        result = self.infer()
        h = shared_memory.get_contents_as_numpy(self.region, np.float32, [8], offset=64)
        np.testing.assert_allclose(h, e / (1 + np.exp(-e.astype(np.float64))), rtol=1e-6)
        self.assertEqual(list(result.get_output("h").shape), [8])

    def test_metadata_names_the_extension(self):
        extensions = self.client.get_server_metadata().extensions
        self.assertIn("system_shared_memory", extensions)
        self.assertNotIn("cuda_shared_memory", extensions)

    def test_names_outside_the_prefix_are_refused_like_names_that_are_none(self):
        for key in ("/other_name", "/no_such_file", f"/{self.name}/..", "", "/"):
            self.assert_refused("INVALID_ARGUMENT", "region 'r': key not allowed", lambda: self.register(key=key))

    def test_a_region_is_unknown_after_unregister(self):
        self.register()
        self.infer()
        self.client.unregister_system_shared_memory("r")
        self.client.unregister_system_shared_memory("r")
        self.assert_refused("NOT_FOUND", "unknown region 'r'", self.infer)
        self.assertEqual(len(self.client.get_system_shared_memory_status().regions), 0)

    def test_no_line_of_the_log_has_a_key(self):
        self.register()
        self.assert_refused("ALREADY_EXISTS", "region 'r' is registered already", self.register)
        self.assert_refused("NOT_FOUND", "unknown region 'other'", lambda: self.infer("other"))
        self.assertNotIn(self.name, "\n".join(self.server.log))


if __name__ == "__main__":
    server_process.main()
