#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Ten times more than the server can hold, from callers that say how much will come and from such that do not: the process
# stays within its memory budget and a little, refuses the rest in the ways that it may, and serves as before afterwards.
import json
import unittest

import plain_grpc
import server_process
from plain_grpc import forward_request, infer_once
from server_process import Server

BUDGET_BYTES = 256 << 20
# Beyond the budget: the program itself, its threads, and what the allocator has torn.
SLACK_BYTES = 100_000_000


class OverloadTest(unittest.TestCase):
    def overload(self, announce_size):
        """Offers a fresh server ten times its budget; returns what became of that."""
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}") as server:
            result = server_process.run(
                server_process.BENCH, f"--server={server.address}", f"--server_pid={server.pid}", "--json",
                f"--announce_size={announce_size}", "--request_bytes=32MiB", "--connections=40", "--in_flight=40",
                "--warm_up=0", "--duration=5s")
            self.assertTrue(result.stdout, f"{result.returncode}: {result.stderr}\n{server.log}")
            load = json.loads(result.stdout)
            high_water = load["server"]["resident_high_water_bytes"]
            print(f"announce_size={announce_size}: {load['requests']} served, refused {load['errors']}; "
                  f"resident at most {high_water / 2**20:.0f} MiB of a budget of {BUDGET_BYTES >> 20}", flush=True)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)
        self.assertLessEqual(high_water, BUDGET_BYTES + SLACK_BYTES)
        return load

    def test_callers_that_announce_are_refused_before_they_send(self):
        load = self.overload("true")
        self.assertGreater(load["requests"], 0)
        self.assertEqual(list(load["errors"]), ["UNAVAILABLE"])

    # What has begun to come when the memory ends is broken off by the library, in its own words.
    def test_callers_that_announce_nothing_do_not_break_the_bound(self):
        self.assertLessEqual(set(self.overload("false")["errors"]), {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})


if __name__ == "__main__":
    server_process.main()
