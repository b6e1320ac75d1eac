#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The times that the server tells a caller who asks for them: gRPC's own client finds them in the trailing metadata, and they fit
# into the round trip that it measures.
import re
import time
import unittest

import grpc

import plain_grpc
import server_process
from plain_grpc import forward_request, infer_request
from server_process import DEADLINE_S

ASKING = (("swiglu-want-timing", "1"),)


def timing_of(call):
    """The value of `server-timing` in the trailing metadata of a call, or None."""
    values = [value for key, value in call.trailing_metadata() if key == "server-timing"]
    if len(values) > 1:
        raise AssertionError(values)
    return values[0] if values else None


class ServerTimingTest(server_process.ServerTest):
    def setUp(self):
        # Whatever proxy the environment names.
        channel = grpc.insecure_channel(self.server.address, options=[("grpc.enable_http_proxy", 0)])
        self.addCleanup(channel.close)
        # Messages are bytes.
        self.infer = channel.unary_unary(plain_grpc.INFER)
        self.stream_infer = channel.stream_stream(plain_grpc.STREAM_INFER)

    def test_caller_that_asks_is_told_times_that_fit_into_the_round_trip(self):
        for num_elements in (1, 4, 1 << 16):
            with self.subTest(num_elements):
                began = time.monotonic()
                _, call = self.infer.with_call(forward_request(num_elements), timeout=DEADLINE_S, metadata=ASKING)
                round_trip_ms = (time.monotonic() - began) * 1000
                timing = timing_of(call)
                self.assertRegex(timing, r"^queue;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}$")
                times_ms = [float(text) for text in re.findall(r"dur=([\d.]+)", timing)]
                print(f"{num_elements} elements: {timing} of {round_trip_ms:.3f} ms", flush=True)
                self.assertLessEqual(sum(times_ms), round_trip_ms)
        # The largest of the three takes longer than the least time that can be told.
        self.assertGreater(times_ms[1], 0)

    def test_caller_that_does_not_ask_is_told_nothing(self):
        _, call = self.infer.with_call(forward_request(), timeout=DEADLINE_S)
        self.assertIsNone(timing_of(call))

    def test_refused_caller_is_told_nothing(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.infer(infer_request("nope", "FP32", [1], {"e": bytes(4)}), timeout=DEADLINE_S, metadata=ASKING)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIsNone(timing_of(raised.exception))

    def test_stream_is_told_nothing(self):
        call = self.stream_infer(iter([forward_request()]), timeout=DEADLINE_S, metadata=ASKING)
        self.assertEqual(len(list(call)), 1)
        self.assertIsNone(timing_of(call))


if __name__ == "__main__":
    server_process.main()
