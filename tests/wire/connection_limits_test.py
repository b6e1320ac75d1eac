#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What a connection may do and how long it may live: metadata of every size, pings, age, and peers that do not answer. Whoever
# keeps to the limits notices nothing, whoever does not is told, and its neighbours are served on.
import unittest

from hyperframe.frame import GoAwayFrame, PingFrame

import plain_grpc
import server_process
from plain_grpc import Connection, forward_request
from server_process import Server

LIVE = "/inference.GRPCInferenceService/ServerLive"
ENHANCE_YOUR_CALM = 11


def metadata_of(num_bytes):
    """One entry that counts as so many bytes."""
    return [("authorization", "x" * (num_bytes - 32 - len("authorization")))]


def call(connection, method, metadata=()):
    """Makes a call with a message that is good for any of the methods here."""
    begun = connection.open(method, metadata)
    begun.send(forward_request() if method == plain_grpc.INFER else b"", last=method != plain_grpc.STREAM_INFER)
    return begun


class MetadataTest(unittest.TestCase):
    def test_a_token_of_8_kilobytes_passes_by_default(self):
        with Server() as server, Connection(server.address) as connection:
            # The first call comes before the server's settings are known, the second after.
            for _ in range(2):
                self.assertEqual(call(connection, plain_grpc.INFER, metadata_of(8192)).status(), (plain_grpc.OK, ""))
            self.assertEqual(call(connection, plain_grpc.INFER, metadata_of(32_000)).status(), (plain_grpc.OK, ""))

    def test_more_than_the_limit_is_refused_with_numbers_and_counted(self):
        with Server("--max_metadata_bytes=10000") as server, Connection(server.address) as connection:
            self.assertEqual(call(connection, LIVE, metadata_of(9_000)).status(), (plain_grpc.OK, ""))
            for method in (LIVE, plain_grpc.INFER, plain_grpc.STREAM_INFER):
                with self.subTest(method):
                    code, sentence = call(connection, method, metadata_of(100_000)).status()
                    self.assertEqual(code, plain_grpc.RESOURCE_EXHAUSTED)
                    self.assertRegex(sentence, r"^metadata of 100\d\d\d bytes exceeds max_metadata_bytes 10000$")
            server.wait_for_metric(2, "swiglu_rejected_total", reason="too_large")
            server.wait_for(rf" W request not served: metadata of \d+ bytes .* peer={connection.peer()} ")

    def test_first_call_of_a_connection_is_held_to_the_limit_too(self):
        # gRPC itself takes more as long as the client has not acknowledged the server's settings.
        with Server() as server, Connection(server.address) as connection:
            code, sentence = call(connection, plain_grpc.INFER, metadata_of(2_000_000)).status()
            self.assertEqual(code, plain_grpc.RESOURCE_EXHAUSTED)
            self.assertRegex(sentence, r"^metadata of 2000\d\d\d bytes exceeds max_metadata_bytes 32768$")
            server.wait_for_metric(1, "swiglu_rejected_total", reason="too_large")

    def test_refused_call_leaves_the_others_of_its_connection_alone(self):
        with Server() as server, Connection(server.address) as connection:
            watch = call(connection, plain_grpc.WATCH)
            self.assertIsNotNone(watch.message())
            self.assertEqual(call(connection, LIVE, metadata_of(200_000)).status()[0], plain_grpc.RESOURCE_EXHAUSTED)
            self.assertEqual(call(connection, plain_grpc.INFER).status(), (plain_grpc.OK, ""))
            self.assertFalse(watch.ended)


class PingTest(unittest.TestCase):
    def ping(self, connection):
        """Pings, and returns once the answer is there."""
        connection.send(PingFrame(opaque_data=bytes(8)))
        connection.read_until(PingFrame)

    def test_client_that_pings_too_often_is_sent_away(self):
        with Server("--min_ping_interval=1h") as server, Connection(server.address) as connection:
            # The first one has no interval before it, and two are forgiven.
            for _ in range(4):
                connection.send(PingFrame(opaque_data=bytes(8)))
            farewell = connection.read_until(GoAwayFrame)
            self.assertEqual(farewell.error_code, ENHANCE_YOUR_CALM)
            self.assertEqual(farewell.additional_data, b"too_many_pings")

    def test_client_may_ping_as_often_as_the_flag_says(self):
        with Server("--min_ping_interval=1ms") as server, Connection(server.address) as connection:
            for _ in range(20):
                self.ping(connection)
            self.assertEqual(call(connection, LIVE).status(), (plain_grpc.OK, ""))

    def test_silent_client_is_asked_and_let_go_if_it_does_not_answer(self):
        with Server("--keepalive_time=1s", "--keepalive_timeout=1s") as server:
            with Connection(server.address) as connection:
                connection.read_until(PingFrame)  # which answers it
                connection.answers_pings = False
                with self.assertRaises(ConnectionError):
                    while True:
                        connection.read()


class AgeTest(unittest.TestCase):
    def test_old_connection_is_told_to_go_and_its_calls_are_finished(self):
        with Server("--max_connection_age=1s") as server, Connection(server.address) as connection:
            late = connection.open(plain_grpc.INFER)
            farewell = connection.read_until(GoAwayFrame)
            self.assertEqual(farewell.error_code, 0)
            late.send(forward_request())
            self.assertEqual(late.status(), (plain_grpc.OK, ""))

    def test_calls_of_an_old_connection_end_with_the_grace(self):
        with Server("--max_connection_age=1s", "--max_connection_age_grace=1s") as server:
            with Connection(server.address) as connection:
                watch = call(connection, plain_grpc.WATCH)
                self.assertIsNotNone(watch.message())
                with self.assertRaises(ConnectionError):
                    while True:
                        connection.read()


if __name__ == "__main__":
    server_process.main()
