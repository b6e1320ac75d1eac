#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What a server gets that it cannot serve: messages that are too large or malformed, calls cut short, and bytes that are no
# gRPC at all. Each has its answer where there can be one, and afterwards the server serves as before.
import json
import os
import random
import struct
import tempfile
import unittest

from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

import plain_grpc
import server_process
from plain_grpc import Connection, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, connect, forward_request, infer_once
from server_process import Server

LIVE = "/inference.GRPCInferenceService/ServerLive"
WRONG_FLAG = "malformed ModelInferRequest: .* flag byte is neither 0 nor 1"


class InputTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--max_request_bytes=1000")
        self.addCleanup(self.server.kill)

    def assert_serves(self):
        """The server answers a good request, still as the same process, and stops as it should."""
        self.assertEqual(infer_once(self.server.address, forward_request()), (plain_grpc.OK, ""))
        self.assertEqual(self.server.stop(), 0, self.server.log)


class TooLargeTest(InputTest):
    def test_larger_message_is_resource_exhausted_with_both_sizes(self):
        message = forward_request(200)
        self.assertEqual(
            infer_once(self.server.address, message),
            (RESOURCE_EXHAUSTED, f"request of {len(message)} bytes exceeds max_request_bytes 1000"))
        self.assertEqual(self.server.metric("swiglu_rejected_total", reason="too_large"), 1)
        self.assert_serves()

    def test_announced_size_is_refused_before_the_message(self):
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "1001")])
            self.assertEqual(call.status(),
                             (RESOURCE_EXHAUSTED, "request of 1001 bytes exceeds max_request_bytes 1000"))
        self.assert_serves()

    def test_announced_size_that_the_budget_can_never_hold_is_refused_before_the_message(self):
        with Server("--memory_budget_bytes=1MiB") as server, Connection(server.address) as connection:
            call = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "1000000")])
            self.assertEqual(call.status(), (RESOURCE_EXHAUSTED, "request needs 1000000 bytes at once; half of the memory "
                                                                  "budget of 1048576 bytes is the most"))
            self.assertEqual(server.stop(), 0, server.log)

    def test_message_of_the_limit_is_served(self):
        base = len(forward_request(100))
        message = forward_request(100) + plain_grpc.field(3, "x" * (1000 - base - 3))
        self.assertEqual(len(message), 1000)
        self.assertEqual(infer_once(self.server.address, message), (plain_grpc.OK, ""))
        self.assertEqual(infer_once(self.server.address, message + b"\x1a\0")[0], RESOURCE_EXHAUSTED)
        self.assert_serves()


class MalformedMessageTest(InputTest):
    def test_garbage_is_invalid_argument_and_says_where(self):
        self.assertEqual(infer_once(self.server.address, b"\xff" * 40),
                         (INVALID_ARGUMENT, "malformed ModelInferRequest: no field at byte 0"))
        self.assertEqual(
            self.server.metric("swiglu_requests_total", model="unknown", code="INVALID_ARGUMENT"), 1)
        self.assert_serves()

    def test_names_that_are_not_utf8_are_refused_and_leave_the_log_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            address = f"unix:{folder}/socket"
            with Server("--log_format=json", f"--grpc_address={address}") as server:
                server.wait_for("serving gRPC on")
                status, sentence = infer_once(address, plain_grpc.field(3, b"\xff\xfe"))
                self.assertEqual(status, INVALID_ARGUMENT, sentence)
                self.assertEqual(server.stop(), 0, server.log)
                for line in server.log:
                    self.assertIn("msg", json.loads(line))

    def test_message_cut_anywhere_is_refused(self):
        message = forward_request(2)
        last_raw = len(message) - 10  # tag, length and eight bytes
        with Connection(self.server.address) as connection:
            for length in range(len(message)):
                call = connection.open(plain_grpc.INFER)
                call.send(message[:length])
                code, sentence = call.status()
                self.assertEqual(code, INVALID_ARGUMENT, (length, sentence))
                if length > last_raw:
                    self.assertEqual(sentence, f"malformed ModelInferRequest: field 7 at byte {last_raw}")
        self.assert_serves()

    def test_random_messages_never_end_the_server(self):
        source = random.Random(7)
        good = forward_request(2)
        with Connection(self.server.address) as connection:
            for _ in range(300):
                message = bytearray(good)
                for _ in range(source.randint(1, 4)):
                    message[source.randrange(len(message))] = source.randrange(256)
                call = connection.open(plain_grpc.INFER)
                call.send(bytes(message))
                call.status()
        self.assert_serves()

    def test_call_without_a_whole_message_is_invalid_argument(self):
        message = forward_request()
        whole = b"\0" + struct.pack(">I", len(message)) + message
        with Connection(self.server.address) as connection:
            for method, name in ((plain_grpc.INFER, "ModelInferRequest"), (plain_grpc.STREAM_INFER, "ModelInferRequest"),
                                 (LIVE, "request"), (plain_grpc.WATCH, "HealthCheckRequest")):
                for part in (b"", whole[:3], whole[:5], whole[:-1]):
                    with self.subTest(f"{method} after {len(part)} bytes"):
                        call = connection.open(method)
                        call.send_raw(part)
                        self.assertEqual(call.status(), (
                            INVALID_ARGUMENT, f"malformed {name}: no whole message came, or its flag byte is neither 0 nor 1"))
        self.assert_serves()

    # gRPC 1.51 shows such a message as an empty one or as none, by how far the call has come.
    def test_wrong_flag_byte_of_a_message_is_invalid_argument(self):
        message = forward_request()
        with Connection(self.server.address) as connection:
            for flag in (2, 128, 255):
                wrong = bytes([flag]) + struct.pack(">I", len(message)) + message
                with self.subTest(flag):
                    call = connection.open(plain_grpc.INFER)
                    call.send_raw(wrong)
                    code, sentence = call.status()
                    self.assertEqual(code, INVALID_ARGUMENT)
                    self.assertRegex(sentence, WRONG_FLAG)
                    call = connection.open(plain_grpc.STREAM_INFER)
                    call.send_raw(wrong)
                    answer = call.message()
                    code, sentence = call.status()
                    # In an answer if the message counts as an empty one.
                    self.assertRegex(sentence if answer is None else answer.decode(), WRONG_FLAG)
                    self.assertEqual(code, INVALID_ARGUMENT if answer is None else plain_grpc.OK)
        self.assert_serves()

    def test_stream_stays_open_after_garbage(self):
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.STREAM_INFER)
            call.send(b"\xff" * 40, last=False)
            self.assertIn(b"malformed ModelInferRequest: no field at byte 0", call.message())
            call.send(forward_request())
            self.assertIn(b"swiglu_forward_fp32", call.message())
            self.assertEqual(call.status(), (plain_grpc.OK, ""))
        self.assert_serves()


class CutShortTest(InputTest):
    def test_connection_lost_in_the_middle_of_a_message_leaves_nothing_behind(self):
        for _ in range(20):
            with Connection(self.server.address) as connection:
                call = connection.open(plain_grpc.INFER)
                call.send(forward_request()[:30], last=False, announced=900)
        self.assert_serves()

    def test_calls_cancelled_at_once_leave_nothing_behind(self):
        with Connection(self.server.address) as connection:
            for _ in range(50):
                call = connection.open(plain_grpc.INFER)
                call.send(forward_request())
                call.reset()
        self.assert_serves()
        self.assertRegex(self.server.log[-1], "drained; exiting$")

    def test_streams_cancelled_with_answers_under_way_leave_nothing_behind(self):
        with Connection(self.server.address) as connection:
            for _ in range(50):
                call = connection.open(plain_grpc.STREAM_INFER)
                for _ in range(5):
                    call.send(forward_request(), last=False)
                call.reset()
        self.assert_serves()

    def test_message_shorter_than_announced_is_an_error_of_that_call(self):
        with Connection(self.server.address) as connection:
            call = connection.open(plain_grpc.INFER)
            call.send(forward_request(), announced=500)
            self.assertNotEqual(call.status()[0], plain_grpc.OK)
        self.assert_serves()


class GarbageBytesTest(InputTest):
    def send_and_read_to_end(self, address, data):
        """Sends bytes, says that no more come and waits until the server has closed its side."""
        with connect(address) as raw:
            try:
                raw.sendall(data)
                raw.shutdown(1)
                while raw.recv(4096):
                    pass
            except OSError:
                pass  # the server may hang up first

    def test_bytes_that_are_no_grpc_leave_the_server_alive(self):
        start = plain_grpc.PREFACE + SettingsFrame().serialize()
        for data in (b"", b"\0" * 4096, random.Random(1).randbytes(70000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), plain_grpc.PREFACE[:10],
                     plain_grpc.PREFACE + b"\xff" * 2000,
                     start + HeadersFrame(1, b"\xff" * 50, flags=["END_HEADERS"]).serialize(),
                     start + DataFrame(7, b"abc", flags=["END_STREAM"]).serialize(),
                     start + struct.pack(">IBI", 0xFFFFFF00, 0, 1)):
            with self.subTest(data[:40]):
                self.send_and_read_to_end(self.server.address, data)
        self.assert_serves()

    def test_bytes_that_are_no_http_leave_the_metrics_page_alive(self):
        address = f"127.0.0.1:{self.server.metrics_port}"
        for data in (b"", b"\0" * 100, os.urandom(70000), b"GET", b"GET /metrics\r\n\r\n", b"\r\n\r\n",
                     b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 20000):
            with self.subTest(data[:20]):
                self.send_and_read_to_end(address, data)
        self.assertEqual(self.server.get()[0].status, 200)
        self.assert_serves()


if __name__ == "__main__":
    server_process.main()
