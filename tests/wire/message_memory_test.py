#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Messages that take, or would take, more memory than their callers may have: each is refused alone, in its own words, and
# what the process holds stays in bounds.
import struct
import threading
import unittest
import zlib

import plain_grpc
import server_process
from plain_grpc import Connection, RESOURCE_EXHAUSTED, UNIMPLEMENTED, forward_request, infer_once
from server_process import Server

LIVE = "/inference.GRPCInferenceService/ServerLive"
UNARY_AND_STREAMS = (plain_grpc.INFER, plain_grpc.STREAM_INFER, LIVE, plain_grpc.WATCH)
# By how much has come when it is seen.
TOO_LARGE = ("^(request has more than 25165824 bytes; without swiglu-request-bytes three eighths of the memory budget of 67108864 "
             r"bytes are the most|request needs \d+ bytes at once; half of the memory budget of 67108864 bytes is the most)$")
# What the process may grow by for reasons of its own: its first calls, threads that wake up.
SLACK_BYTES = 40_000_000


def bomb(num_bytes, wbits):
    """That many zeros, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(bytes(num_bytes)) + packer.flush()


def prefixed(message, flag=0):
    """A message as it goes over the wire."""
    return bytes([flag]) + struct.pack(">I", len(message)) + message


class MessageMemoryTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--memory_budget_bytes=64MiB")
        self.addCleanup(self.server.kill)
        self.assertEqual(infer_once(self.server.address, forward_request()), (plain_grpc.OK, ""))
        self.before_bytes = self.server.resident_bytes()

    def tearDown(self):
        self.assertEqual(infer_once(self.server.address, forward_request()), (plain_grpc.OK, ""))
        self.assertEqual(self.server.stop(), 0, self.server.log)

    def grown_bytes(self):
        """By how much the process has been larger since the test began, at most."""
        return self.server.resident_bytes(at_most=True) - self.before_bytes

    def test_compressed_messages_are_refused_unpacked(self):
        for encoding, wbits in (("gzip", 31), ("deflate", 15)):
            packed = prefixed(bomb(256 << 20, wbits), flag=1)
            for method in UNARY_AND_STREAMS:
                with self.subTest(f"{encoding} {method}"), Connection(self.server.address) as connection:
                    call = connection.open(method, [("grpc-encoding", encoding)])
                    call.pour(packed, last=True)
                    self.assertEqual(call.status(), (UNIMPLEMENTED, f"Compression algorithm '{encoding}' is disabled."))
        self.assertLess(self.grown_bytes(), SLACK_BYTES)

    def test_control_message_over_64_kib_is_refused_with_both_sizes(self):
        most = 65536
        # An unknown field, which protobuf would keep.
        for size, expected in ((most, (plain_grpc.OK, "")),
                               (most + 1, (RESOURCE_EXHAUSTED,
                                           "ServerLiveRequest of 65537 bytes exceeds the 65536 that it may have"))):
            message = plain_grpc.field(15, bytes(size - 4))
            self.assertEqual(len(message), size)
            with Connection(self.server.address) as connection:
                call = connection.open(LIVE)
                call.pour(prefixed(message), last=True)
                self.assertEqual(call.status(), expected)
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.WATCH)
            call.pour(prefixed(plain_grpc.field(15, bytes(most))), last=True)
            self.assertEqual(call.status(), (RESOURCE_EXHAUSTED,
                                             "HealthCheckRequest of 65540 bytes exceeds the 65536 that it may have"))

    def test_large_control_message_is_held_once(self):
        message = plain_grpc.field(15, bytes(40_000_000))
        with Connection(self.server.address) as connection:
            call = connection.open(LIVE)
            call.pour(prefixed(message), last=True)
            self.assertEqual(call.status()[0], RESOURCE_EXHAUSTED)
        # As gRPC holds it: it shows no message before that is whole.
        self.assertLess(self.grown_bytes(), len(message) + SLACK_BYTES)

    def test_answers_of_a_stream_that_nobody_reads_are_short_and_charged(self):
        num_streams, num_requests, id_bytes = 8, 100, 60_000
        request = prefixed(plain_grpc.field(1, "nope") + plain_grpc.field(3, "x" * id_bytes))
        with Connection(self.server.address, window_bytes=0) as connection:
            streams = [connection.open(plain_grpc.STREAM_INFER) for _ in range(num_streams)]
            for stream in streams:
                stream.pour(request * num_requests)
            while self.server.metric("swiglu_requests_total", model="unknown", code="NOT_FOUND") < num_streams * num_requests:
                self.assertTrue(self.server.is_running())
            charged_bytes = self.server.metric("swiglu_memory_used_bytes", kind="response")
            # An id of 128 bytes and the sentence.
            self.assertGreater(charged_bytes, num_streams * num_requests * 128)
            self.assertLess(charged_bytes, num_streams * num_requests * 512)
        self.assertLess(self.grown_bytes(), SLACK_BYTES)

    def test_shapes_and_ids_of_answers_are_charged(self):
        num_calls = 10
        request = plain_grpc.infer_request("swiglu_forward_fp32", "FP32", [1] * 20_000, {"e": bytes(4), "g": bytes(4)},
                                           "x" * 10_000)
        with Connection(self.server.address, window_bytes=0) as connection:
            for _ in range(num_calls):
                call = connection.open(plain_grpc.INFER)
                call.pour(prefixed(request), last=True)
                call.wait_for_headers()
            self.assertGreater(self.server.metric("swiglu_memory_used_bytes", kind="response"), num_calls * 30_000)


class BudgetTest(unittest.TestCase):
    """One half of 32 MiB is for messages."""

    def setUp(self):
        self.server = Server("--memory_budget_bytes=64MiB")
        self.addCleanup(self.server.kill)
        self.address = self.server.address

    def tearDown(self):
        self.assertEqual(self.server.stop(), 0, self.server.log)

    def assert_serves(self, num_elements=4):
        """A caller without an announcement, on a connection of its own, is served."""
        with Connection(self.address) as connection:
            connection.widen(1 << 30)
            call = connection.open(plain_grpc.INFER)
            call.pour(prefixed(forward_request(num_elements)), last=True)
            self.assertEqual(call.status(), (plain_grpc.OK, ""))

    def test_large_message_does_not_shut_small_ones_out_afterwards(self):
        with Connection(self.address) as connection:
            call = connection.open(plain_grpc.INFER)
            call.pour(prefixed(plain_grpc.field(15, bytes(20_000_000))), last=True)
            # It has much beside its tensors, of which it has none.
            self.assertEqual(call.status()[0], RESOURCE_EXHAUSTED)
        with Connection(self.address) as connection:
            calls = [connection.open(plain_grpc.INFER) for _ in range(32)]
            for call in calls:
                call.send(forward_request())
            self.assertEqual([call.status() for call in calls], [(plain_grpc.OK, "")] * 32)

    def test_message_that_is_too_large_is_refused_while_it_comes(self):
        with Connection(self.address) as connection:
            call = connection.open(plain_grpc.INFER)
            # So slow that it is seen before it is whole.
            num_sent = self.pour_slowly(call, 40_000_000)
            code, sentence = call.status()
            self.assertEqual(code, RESOURCE_EXHAUSTED, sentence)
            self.assertRegex(sentence, TOO_LARGE)
        self.assertLess(num_sent, 40_000_000)
        self.assertEqual(self.server.metric("swiglu_rejected_total", reason="too_large"), 1)
        self.assertEqual(self.server.metric("swiglu_rejected_total", reason="cancelled"), 0)

    def test_too_large_messages_fail_alone(self):
        statuses = []

        def send_too_much():
            with Connection(self.address) as connection:
                call = connection.open(plain_grpc.INFER)
                self.pour_slowly(call, 40_000_000)
                statuses.append(call.status())

        culprits = [threading.Thread(target=send_too_much, daemon=True) for _ in range(3)]
        for culprit in culprits:
            culprit.start()
        num_served = 0
        while any(culprit.is_alive() for culprit in culprits) or num_served == 0:
            self.assert_serves(100_000)
            num_served += 1
        self.assertEqual(len(statuses), 3)
        for code, sentence in statuses:
            self.assertIn(code, (RESOURCE_EXHAUSTED, plain_grpc.UNAVAILABLE), sentence)
            self.assertRegex(sentence, "memory budget of 67108864 bytes")
        self.assertEqual(self.server.metric("swiglu_rejected_total", reason="cancelled"), 0)

    def test_what_comes_of_a_refused_message_harms_no_other_of_its_connection(self):
        with Connection(self.address) as connection:
            announced = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "1000")])
            refused = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", str(1 << 40))])
            self.assertEqual(refused.status()[0], RESOURCE_EXHAUSTED)
            # Almost twice half of the budget, which is the most that a message may have.
            for _ in range(60):
                refused.pour_on(1 << 20)
                self.assertIsNotNone(self.last_call(connection))
            announced.send(forward_request())
            self.assertEqual(announced.status(), (plain_grpc.OK, ""))

    def test_announcement_of_a_message_that_does_not_come_is_soon_forgotten(self):
        with Connection(self.address) as connection:
            silent = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", str(32 << 20))])
            while self.server.metric("swiglu_memory_used_bytes", kind="receive") < 32 << 20:
                self.assertTrue(self.server.is_running())
            # Small ones are served at once.
            for _ in range(10):
                self.assert_serves()
            while self.server.metric("swiglu_memory_used_bytes", kind="receive") > 1 << 20:
                self.assertTrue(self.server.is_running())
            self.assert_serves(200_000)
            self.assertFalse(silent.ended)
            # It may still come.
            silent.send(forward_request())
            self.assertEqual(silent.status(), (plain_grpc.OK, ""))

    def test_silent_calls_do_not_shut_others_out(self):
        with Connection(self.address) as first, Connection(self.address) as second:
            for connection in (first, second):
                for _ in range(1000):
                    connection.open(plain_grpc.INFER)
                # The server has heard of them when it answers a later call.
                self.assertIsNotNone(self.last_call(connection))
            for _ in range(10):
                self.assert_serves()

    def last_call(self, connection):
        """Calls ServerLive over a connection and returns the answer."""
        call = connection.open(LIVE)
        call.send(b"")
        return call.message()

    def pour_slowly(self, call, num_bytes):
        """Pours a message in pieces, each after the server has answered a call of another connection; returns how far it came."""
        message = prefixed(plain_grpc.field(15, bytes(num_bytes)))
        at = 0
        with Connection(self.address) as other:
            while at < len(message) and not call.ended:
                at += call.pour(message[at:at + 1_000_000])
                self.last_call(other)
                call.connection.read_what_is_there()
        return at


if __name__ == "__main__":
    server_process.main()
