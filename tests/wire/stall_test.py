#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Callers that stop in the middle: of their message, or of taking their answer. Each holds its own share for the server's
# --stall_timeout and no longer, and others are served meanwhile.
import signal
import time
import unittest

import plain_grpc
import server_process
from plain_grpc import Connection, forward_request, infer_once
from server_process import Server

CANCELLED, DEADLINE_EXCEEDED = 1, 4
LIVE = "/inference.GRPCInferenceService/ServerLive"
LATE = (DEADLINE_EXCEEDED, "the message did not come within 1.005s")


class StallTest(unittest.TestCase):
    def setUp(self):
        # Who announces nothing has the time for the largest message: little, too.
        self.server = Server("--stall_timeout=1s", "--max_request_bytes=100000")
        self.addCleanup(self.server.kill)

    def used_bytes(self, kind):
        """What the server holds of that kind."""
        return self.server.metric("swiglu_memory_used_bytes", kind=kind)

    def wait_until_free(self, kind):
        """Returns once the server holds nothing of that kind, which may be a moment after the caller has heard."""
        end = time.monotonic() + server_process.DEADLINE_S
        while self.used_bytes(kind) > 0:
            self.assertLess(time.monotonic(), end, f"{kind} is still in use")

    def assert_serves(self):
        """The server answers a good request."""
        self.assertEqual(infer_once(self.server.address, forward_request()), (plain_grpc.OK, ""))

    def assert_stops(self):
        """The server ends as one should that holds nothing any more."""
        self.assertEqual(self.server.stop(), 0, self.server.log)

    def test_announced_message_that_stops_in_the_middle_frees_its_share(self):
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "90000")])
            call.send(forward_request()[:30], last=False, announced=90_000)
            self.assert_serves()
            self.assertEqual(self.used_bytes("receive"), 90_000)
            self.assertEqual(call.status(), LATE)
            self.wait_until_free("receive")
        self.assert_serves()
        self.assert_stops()

    def test_an_idle_stream_outlives_calls_with_large_headers_beside_it(self):
        with Connection(self.server.address) as connection:
            stream = connection.open(plain_grpc.STREAM_INFER)
            for _ in range(100):
                for method, code in ((plain_grpc.INFER, plain_grpc.OK), ("/a.Service/Method", plain_grpc.UNIMPLEMENTED)):
                    call = connection.open(method, [("authorization", "x" * 8000)])
                    call.send(forward_request())
                    self.assertEqual(call.status()[0], code)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                self.assert_serves()
            stream.send(forward_request())
            self.assertIsNotNone(stream.message())
            self.assertEqual(stream.status(), (plain_grpc.OK, ""))

    def test_message_that_stops_in_the_middle_ends_its_call(self):
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.INFER)
            call.send(forward_request()[:30], last=False, announced=90_000)
            self.assertEqual(call.status(), LATE)
            self.wait_until_free("receive")
            self.server.wait_for_metric(1, "swiglu_rejected_total", reason="deadline")
        self.assert_stops()

    def test_call_without_tensors_whose_message_does_not_come_ends(self):
        late = (DEADLINE_EXCEEDED, "the message did not come within 1.003s")
        with Connection(self.server.address) as connection:
            calls = [connection.open(method) for method in (LIVE, LIVE, plain_grpc.WATCH, plain_grpc.WATCH)]
            for call in calls[::2]:
                call.send(b"\x0a", last=False, announced=100)
            self.assertEqual([call.status() for call in calls], [late] * 4)
        self.assert_stops()

    def test_answer_of_a_call_without_tensors_that_is_not_taken_is_given_up(self):
        for method in (LIVE, plain_grpc.WATCH):
            with self.subTest(method), Connection(self.server.address, window_bytes=0) as connection:
                call = connection.open(method)
                call.send(b"")
                self.assertEqual(call.status()[0], CANCELLED)
        self.assert_stops()

    def test_watch_that_is_read_goes_on(self):
        with Connection(self.server.address) as connection:
            watch = connection.open(plain_grpc.WATCH)
            watch.send(b"")
            self.assertIsNotNone(watch.message())
            stalled = connection.open(plain_grpc.INFER)
            self.assertEqual(stalled.status(), LATE)
            self.assertFalse(watch.ended)
            self.server.signal(signal.SIGTERM)
            self.assertIsNotNone(watch.message())
        self.assertEqual(self.server.exit_code(), 0)

    # A stream may be idle; by the bytes of its connection the server sees that this one is not.
    def test_message_of_a_stream_that_stops_in_the_middle_ends_the_stream(self):
        with Server("--stall_timeout=1s", "--keepalive_time=0") as server, Connection(server.address) as connection:
            idle = connection.open(plain_grpc.STREAM_INFER)
            idle.send(forward_request(), last=False)
            self.assertIsNotNone(idle.message())
            with Connection(server.address) as other:
                stream = other.open(plain_grpc.STREAM_INFER)
                stream.pour(b"\0" + (10_000_000).to_bytes(4, "big") + bytes(500_000))
                self.assertEqual(stream.status(), (DEADLINE_EXCEEDED, "the message did not come within 1s"))
            self.assertEqual(server.metric("swiglu_rejected_total", reason="deadline"), 1)
            self.assertEqual(server.metric("swiglu_requests_total", model="unknown", code="DEADLINE_EXCEEDED"), 1)
            self.assertTrue(any("request not served: the message did not come within 1s code=DEADLINE_EXCEEDED peer=" in line
                                for line in server.log), server.log)
            self.assertFalse(idle.ended)
            idle.send(forward_request())
            self.assertIsNotNone(idle.message())
            self.assertEqual(idle.status(), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)

    def test_answer_that_is_not_taken_is_given_up(self):
        with Connection(self.server.address, window_bytes=0) as connection:
            call = connection.open(plain_grpc.INFER)
            call.send(forward_request())
            call.wait_for_headers()
            self.assertGreater(self.used_bytes("response"), 0)
            self.assertEqual(call.status()[0], CANCELLED)
            self.wait_until_free("response")
        self.assert_serves()
        self.assert_stops()

    def test_answer_of_a_stream_that_is_not_taken_ends_the_stream(self):
        with Connection(self.server.address, window_bytes=0) as connection:
            call = connection.open(plain_grpc.STREAM_INFER)
            call.send(forward_request(), last=False)
            call.wait_for_headers()
            self.assertEqual(call.status()[0], CANCELLED)
            self.wait_until_free("response")
        self.assert_serves()
        self.assert_stops()


if __name__ == "__main__":
    server_process.main()
