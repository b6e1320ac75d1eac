#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Two replicas behind one client that balances calls and checks health: each gets half of the calls, and one that drains and
# ends costs no call.
import signal
import unittest

import numpy
import tritonclient.grpc as triton

import balanced_client
import server_process
from server_process import Server

CALLS = 40


class BalancingTest(unittest.TestCase):
    def start(self, *flags):
        """Starts two replicas, the first with the flags, and a client that has a connection to each."""
        self.replicas = [Server(*flags), Server()]
        for replica in self.replicas:
            self.addCleanup(replica.kill)
        self.client = balanced_client.connect("ipv4:" + ",".join(replica.address for replica in self.replicas))
        self.addCleanup(self.client.close)
        self.use_every_replica()

    def call(self):
        """Sends one request, which must succeed."""
        inputs = [triton.InferInput(name, [4], "FP32") for name in ("e", "g")]
        for each in inputs:
            each.set_data_from_numpy(numpy.ones(4, numpy.float32))
        self.assertEqual(self.client.infer("swiglu_forward_fp32", inputs, client_timeout=60).as_numpy("h").shape, (4,))

    def served(self, replica):
        """Returns how many requests the replica has served."""
        return replica.metric("swiglu_requests_total", model="swiglu_forward_fp32", code="OK")

    def use_every_replica(self):
        """Sends requests until every replica has served some, for the client connects to one after the other."""
        for _ in range(1_000):
            self.call()
            if all(self.served(replica) > 0 for replica in self.replicas):
                return
        self.fail("one replica gets no requests")

    def test_each_replica_gets_half_of_the_calls(self):
        self.start()
        before = [self.served(replica) for replica in self.replicas]
        for _ in range(CALLS):
            self.call()
        served = [self.served(replica) - count for replica, count in zip(self.replicas, before)]
        self.assertEqual(served, [CALLS / 2, CALLS / 2])

    def test_clients_turn_away_while_a_draining_replica_still_serves(self):
        self.start("--drain_delay=1h")
        draining = self.replicas[0]
        draining.signal(signal.SIGTERM)
        before = None
        for _ in range(100):
            if before == (before := self.served(draining)):
                return
            for _ in range(CALLS):
                self.call()
        self.fail("the client goes on to call the replica that drains")

    def test_a_replica_that_drains_and_ends_costs_no_call(self):
        self.start("--drain_delay=5s")
        draining, other = self.replicas
        draining.signal(signal.SIGTERM)
        while draining.is_running():
            self.call()
        self.assertEqual(draining.exit_code(), 0, draining.log)
        before = self.served(other)
        for _ in range(CALLS):
            self.call()
        self.assertEqual(self.served(other) - before, CALLS)


if __name__ == "__main__":
    server_process.main()
