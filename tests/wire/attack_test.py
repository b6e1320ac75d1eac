#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Connections that do harm, and an honest client beside them: how long it waits for an answer, at the longest.
import subprocess
import sys
import time
import unittest

import attacks
import plain_grpc
import server_process
from plain_grpc import Connection, forward_request, infer_once
from server_process import Server

BUDGET_BYTES = 256 << 20
# How long an honest client may wait. Without a watchdog it waits as long as the attack takes, seconds.
LONGEST_SILENCE_S = 0.5
ATTACK_S = 3
# Rounds of an honest client until it connects anew.
ROUNDS_PER_CONNECTION = 200


class Attack:
    """An attack that goes on, as a context manager."""

    def __init__(self, name, server, seconds=ATTACK_S):
        self.name = name
        self._process = subprocess.Popen([sys.executable, "-B", attacks.__file__, name, server.address, str(seconds)],
                                         stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def goes_on(self):
        """Whether it has not ended."""
        return self._process.poll() is None

    def result(self):
        """Waits for its end, and returns what it says of it."""
        return self._process.communicate(timeout=server_process.DEADLINE_S)[0].strip()


def longest_silence(server, attack):
    """Asks for the health and for an inference as long as `attack` goes on, on connections that are there and on new ones. Returns
    the longest time that an answer took, and the number of rounds."""
    longest = rounds = 0
    while attack.goes_on():
        with Connection(server.address) as connection:
            for _ in range(ROUNDS_PER_CONNECTION):
                begun = time.monotonic()
                for method, message in ((attacks.HEALTH_CHECK, b""), (plain_grpc.INFER, forward_request())):
                    call = connection.open(method)
                    call.send(message)
                    if call.status() != (plain_grpc.OK, ""):
                        raise AssertionError(f"{method}: {call.status()}")
                longest = max(longest, time.monotonic() - begun)
                rounds += 1
                if not attack.goes_on():
                    break
    return longest, rounds


class AttackTest(unittest.TestCase):
    def attack(self, name, *flags):
        """Attacks a fresh server, which must serve an honest client meanwhile and afterwards."""
        with Server(f"--memory_budget_bytes={BUDGET_BYTES}", *flags) as server, Attack(name, server) as attack:
            silence, rounds = longest_silence(server, attack)
            print(f"{name} {' '.join(flags)}: {attack.result()}; an honest client waited {silence:.3f} s at the longest, in {rounds} rounds",
                  flush=True)
            self.assertLess(silence, LONGEST_SILENCE_S)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)

    def test_header_without_end(self):
        self.attack("long_header")

    def test_header_without_end_meets_a_single_thread(self):
        self.attack("long_header", "--io_threads=1")

    def test_floods_of_frames(self):
        for name in ("ping", "ping_ack", "settings", "empty_data", "small_windows", "priority", "unknown"):
            with self.subTest(name):
                self.attack(name)


if __name__ == "__main__":
    server_process.main()
