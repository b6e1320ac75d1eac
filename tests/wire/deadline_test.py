#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# How long callers say that they wait: a request in the queue is answered when its time is over, one whose caller has gone
# leaves its place, and the longest times that a caller can say are no shorter than others.
import time
import unittest

import plain_grpc
import server_process
from plain_grpc import Connection, field, forward_request, infer_once, varint
from server_process import Server

DEADLINE_EXCEEDED = 4


def with_timeout(message, timeout_us):
    """Adds the parameter `timeout` to a ModelInferRequest."""
    return message + field(4, field(1, "timeout") + field(2, b"\x10" + varint(timeout_us)))


class DeadlineTest(unittest.TestCase):
    def test_longest_timeouts_have_not_passed(self):
        with Server() as server:
            # The most whole hours of 64 bits of nanoseconds, one more, and the most that gRPC can say.
            for timeout in ("2562047H", "2562048H", "99999999H", "99999999S", "99999999n"):
                self.assertEqual(infer_once(server.address, forward_request(), [("grpc-timeout", timeout)]),
                                 (plain_grpc.OK, ""), timeout)
            for timeout_us in (1 << 62, (1 << 63) - 1):
                self.assertEqual(infer_once(server.address, with_timeout(forward_request(), timeout_us)), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)

    def test_request_that_waits_for_others_is_answered_when_its_time_is_over(self):
        with Server("--max_queue_delay=10s") as server:
            started = time.monotonic()
            self.assertEqual(infer_once(server.address, with_timeout(forward_request(), 200000)),
                             (DEADLINE_EXCEEDED, "deadline passed before execution"))
            passed = time.monotonic() - started
            self.assertGreaterEqual(passed, 0.2)
            self.assertLess(passed, 5)
            self.assertEqual(server.stop(), 0, server.log)

    def test_cancelled_requests_leave_their_places(self):
        with Server("--max_queue_delay=10s", "--max_queued_requests=8") as server, Connection(server.address) as connection:
            calls = [connection.open(plain_grpc.INFER) for _ in range(8)]
            for call in calls:
                call.send(forward_request())
            self.await_queued(server, 8)
            self.assertEqual(infer_once(server.address, forward_request()),
                             (plain_grpc.UNAVAILABLE, "queue is full: 8 requests"))
            for call in calls:
                call.reset()
            self.await_queued(server, 0)
            self.assertEqual(infer_once(server.address, with_timeout(forward_request(), 1000))[0], DEADLINE_EXCEEDED)
            server.wait_for_metric(8, "swiglu_rejected_total", reason="cancelled")
            self.assertEqual(server.stop(), 0, server.log)

    def await_queued(self, server, count):
        """Waits until so many requests are in the queue, far less long than they wait there."""
        end = time.monotonic() + 8
        while server.metric("swiglu_queued_requests") != count:
            self.assertLess(time.monotonic(), end, f"{server.metric('swiglu_queued_requests')} requests are queued")


if __name__ == "__main__":
    server_process.main()
