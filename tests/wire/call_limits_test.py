#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Callers that begin more calls than a server can have open, and such that take back what they begin.
import contextlib
import struct
import unittest

import attacks
import plain_grpc
import server_process
from attack_test import Attack
from plain_grpc import Connection, forward_request, infer_once
from server_process import Server

BUDGET_BYTES = 256 << 20
# Beyond the budget: the program itself, its threads and connections, and what the allocator has torn.
SLACK_BYTES = 150_000_000

# What an attack says whose connection the server ends, and which hears of it.
ENDED = "the server ended the connection: .*(reset by peer|Broken pipe)"


class CallLimitsTest(unittest.TestCase):
    def test_calls_that_are_reset_end_their_connection(self):
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}") as server, Attack("resets", server, seconds=30) as attack:
            server.wait_for(r" W connection of ipv4:127\.0\.0\.1:\d+ ended: it has begun and reset too many calls$")
            # The peer hears of it at once, though it may have filled its window.
            self.assertRegex(attack.result(), ENDED)
            server.wait_for_metric(1, "swiglu_ended_connections_total", reason="resets")
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertLess(server.resident_bytes(at_most=True), BUDGET_BYTES + SLACK_BYTES)
            self.assertEqual(server.stop(), 0, server.log)

    def test_floods_of_frames_end_their_connection(self):
        names = ["ping_ack", "settings", "empty_data", "small_windows", "priority", "unknown"]
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}") as server, contextlib.ExitStack() as stack:
            attacks_of_all = {name: stack.enter_context(Attack(name, server, seconds=30)) for name in names}
            for name, attack in attacks_of_all.items():
                with self.subTest(name):
                    self.assertRegex(attack.result(), ENDED)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            # So many at once fill gRPC's memory, and it may end each of them first.
            server.wait_for_metric(0, "swiglu_connections")
            self.assertEqual(server.stop(), 0, server.log)

    def test_a_flood_that_is_ended_is_logged_and_counted(self):
        with Server() as server, Attack("settings", server, seconds=30) as attack:
            self.assertRegex(attack.result(), ENDED)
            server.wait_for(r" W connection of ipv4:127\.0\.0\.1:\d+ ended: it has sent too many bytes that belong to no message$")
            server.wait_for_metric(1, "swiglu_ended_connections_total", reason="frames")

    def test_what_callers_are_refused_does_not_count_as_a_flood(self):
        message = bytes(2 << 20)
        with Server("--max_request_bytes=1MiB", "--memory_budget_bytes=64MiB") as server, Connection(server.address) as connection:
            for path, code in [(plain_grpc.INFER, plain_grpc.RESOURCE_EXHAUSTED), ("/a.Service/Method", plain_grpc.UNIMPLEMENTED)] * 50:
                call = connection.open(path)
                call.pour(struct.pack(">BI", 0, len(message)) + message)
                self.assertEqual(call.status()[0], code)
            server.wait_for_metric(0, "swiglu_ended_connections_total", reason="frames")

    def test_a_load_that_is_refused_is_no_flood(self):
        # Large messages that lie in the windows of calls which a busy server has not got round to, or has refused.
        with Server("--memory_budget_bytes=200MiB") as server:
            for load in ("--request_bytes=4MiB --requests=100 --in_flight=32", "--request_bytes=100MiB --requests=20 --in_flight=4"):
                server_process.run(server_process.BENCH, f"--server={server.address}", "--connections=4", *load.split())
            server.wait_for_metric(0, "swiglu_ended_connections_total", reason="frames")

    def test_the_log_names_no_peer_where_it_may_not(self):
        with Server("--log_peers=off") as server, Attack("priority", server, seconds=30) as attack:
            self.assertRegex(attack.result(), ENDED)
            server.wait_for(r" W connection of a peer ended: it has sent too many bytes that belong to no message$")

    def test_open_calls_are_bounded(self):
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}") as server, Attack("open_calls", server) as attack:
            server.wait_for(r"8192 calls are open, the most at once")
            # Whoever asks whether the server is well is told.
            self.assertEqual(plain_grpc.call_once(server.address, attacks.HEALTH_CHECK), b"\x08\x01")
            attack.result()
            self.assertLess(server.resident_bytes(at_most=True), BUDGET_BYTES + SLACK_BYTES)
            self.assertEqual(server.stop(), 0, server.log)


if __name__ == "__main__":
    server_process.main()
