#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The metrics page of a running server: counters that begin at zero, limits and states that are those of the process, and
# refusals that are counted where callers see them.
import pathlib
import re
import signal
import tempfile
import time
import unittest

import plain_grpc
import server_process
from plain_grpc import Connection, field, forward_request, infer_once, varint
from server_process import Server


def wait_until(test, condition, what):
    """Returns once `condition` holds, which may be a moment after a caller or the log has said so."""
    end = time.monotonic() + server_process.DEADLINE_S
    while not condition():
        test.assertLess(time.monotonic(), end, what)


class StartTest(unittest.TestCase):
    def test_every_counter_and_histogram_begins_at_zero(self):
        with Server() as server:
            page = server.get()[1]
        counted = re.findall(r"^# TYPE (\w+) (?:counter|histogram)$", page, re.MULTILINE)
        self.assertIn("swiglu_retry_pushbacks_total", counted)
        counted.remove("process_cpu_seconds_total")
        series = re.findall(rf"^((?:{'|'.join(counted)})(?:_bucket|_sum|_count)?(?:{{.*}})?) (\S+)$", page, re.MULTILINE)
        self.assertGreater(len(series), 1000)
        self.assertEqual([(name, value) for name, value in series if value != "0"], [])

    def test_limits_are_those_of_the_flags(self):
        with Server("--max_queued_requests=7", "--memory_budget_bytes=64MiB", "--max_pinned_bytes=3MiB") as server:
            self.assertEqual(server.metric("swiglu_queue_limit_requests"), 7)
            self.assertEqual(server.metric("swiglu_region_limit_bytes"), 3 << 20)
            self.assertEqual(server.metric("swiglu_memory_budget_bytes"), 64 << 20)

    def test_server_on_the_cpu_says_nothing_of_gpus(self):
        with Server() as server:
            self.assertEqual(re.findall(r"\b(?:nv|swiglu_gpu)_\w+", server.get()[1]), [])
            self.assertEqual(server.metric("swiglu_device_poisoned", device="cpu"), 0)


class SlabPoolTest(unittest.TestCase):
    def test_slab_is_used_by_an_answer_and_free_afterwards(self):
        with Server() as server:
            def pool(state):
                return server.metric("swiglu_slab_pool_bytes", pool="host", state=state)

            with Connection(server.address, window_bytes=0) as connection:
                call = connection.open(plain_grpc.INFER)
                call.send(forward_request())
                call.wait_for_headers()
                used_bytes = pool("used")
                self.assertGreater(used_bytes, 0)
                self.assertEqual(pool("free"), 0)
                call.reset()
                wait_until(self, lambda: pool("used") == 0, "the slab is still in use")
            self.assertEqual(pool("free"), used_bytes)
            self.assertEqual(server.metric("swiglu_device_memory_used_bytes", device="cpu"), used_bytes)


class RegionTest(unittest.TestCase):
    BYTES = 12288

    def parameters(self, number, offset):
        """The parameters that place a tensor of 4096 bytes in region `r`, in the field of that number."""
        values = {"shared_memory_region": field(3, "r"), "shared_memory_byte_size": b"\x10" + varint(4096),
                  "shared_memory_offset": b"\x10" + varint(offset)}
        return b"".join(field(number, field(1, key) + field(2, value)) for key, value in values.items())

    def test_regions_and_their_bytes_are_on_the_page(self):
        with (Server("--system_shared_memory=on", f"--max_pinned_bytes={self.BYTES}") as server,
              tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="swiglu_metrics_test_") as file):
            file.truncate(self.BYTES)

            def change(what, message):
                return plain_grpc.call_once(server.address, f"/inference.GRPCInferenceService/SystemSharedMemory{what}", message)

            def sizes():
                return [server.metric("swiglu_regions", memory="system"), server.metric("swiglu_region_size_bytes", memory="system"),
                        server.metric("swiglu_memory_used_bytes", kind="region")]

            key_and_size = field(2, pathlib.Path(file.name).name) + b"\x20" + varint(self.BYTES)
            self.assertEqual(change("Register", field(1, "r") + key_and_size), b"")
            self.assertEqual(sizes(), [1, self.BYTES, self.BYTES])
            self.assertIsNone(change("Register", field(1, "other") + key_and_size))
            self.assertEqual(server.metric("swiglu_refused_regions_total", reason="pinned_limit"), 1)

            shape = field(3, varint(1024))
            request = field(1, "swiglu_forward_fp32") + b"".join(
                field(5, field(1, name) + field(2, "FP32") + shape + self.parameters(4, offset)) for name, offset in (("e", 0), ("g", 4096)))
            code, sentence = infer_once(server.address, request + field(6, field(1, "h") + self.parameters(2, 8192)))
            self.assertEqual(code, plain_grpc.OK, sentence)
            self.assertEqual(server.metric("swiglu_region_bytes_total", memory="system", direction="in"), 8192)
            self.assertEqual(server.metric("swiglu_region_bytes_total", memory="system", direction="out"), 4096)
            self.assertEqual(change("Unregister", field(1, "r")), b"")
            self.assertEqual(sizes(), [0, 0, 0])


class DrainTest(unittest.TestCase):
    def test_states_and_refusals_of_a_drain_are_on_the_page(self):
        with Server("--drain_timeout=1h") as server, Connection(server.address, window_bytes=0) as connection:
            def states():
                return [server.metric(f"swiglu_{state}") for state in ("ready", "live", "draining")]

            # An answer that nobody takes holds the drain up.
            call = connection.open(plain_grpc.INFER)
            call.send(forward_request())
            call.wait_for_headers()
            self.assertEqual(states(), [1, 1, 0])
            server.signal(signal.SIGTERM)
            wait_until(self, lambda: states() == [0, 1, 1], "the page does not show the drain")

            self.assertEqual(infer_once(server.address, forward_request()),
                             (plain_grpc.UNAVAILABLE, "server is draining"))
            self.assertEqual(server.metric("swiglu_retry_pushbacks_total"), 1)
            self.assertEqual(server.metric("swiglu_rejected_total", reason="draining"), 1)
            wait_until(self, lambda: server.metric("swiglu_requests_total", model="unknown", code="UNAVAILABLE") == 1,
                       "the refused request is not counted")

    def test_drain_delay_is_no_drain_yet(self):
        with Server("--drain_delay=1h") as server:
            server.wait_for("serving gRPC on")
            server.signal(signal.SIGTERM)
            server.wait_for("serving on for 1h$")
            self.assertEqual(server.metric("swiglu_ready"), 0)
            self.assertEqual(server.metric("swiglu_draining"), 0)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))


if __name__ == "__main__":
    server_process.main()
