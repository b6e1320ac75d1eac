#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Callers that begin more calls than a server can have open, and such that take back what they begin.
import unittest

import attacks
import plain_grpc
import server_process
from attack_test import Attack
from plain_grpc import forward_request, infer_once
from server_process import Server

BUDGET_BYTES = 256 << 20
# Beyond the budget: the program itself, its threads and connections, and what the allocator has torn.
SLACK_BYTES = 150_000_000


class CallLimitsTest(unittest.TestCase):
    def test_calls_that_are_reset_end_their_connection(self):
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}") as server, Attack("resets", server, seconds=30):
            server.wait_for(r" W connection of ipv4:127\.0\.0\.1:\d+ ended: it has reset more than 4096 calls$")
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertLess(server.resident_bytes(at_most=True), BUDGET_BYTES + SLACK_BYTES)
            self.assertEqual(server.stop(), 0, server.log)

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
