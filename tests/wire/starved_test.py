#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# A server that the system gives too little: descriptors, threads, address space. At its start it ends with a sentence and 1;
# with what it started with it serves whatever load there is, or refuses.
import json
import os
import shutil
import subprocess
import tempfile
import unittest

import plain_grpc
import server_process
from plain_grpc import forward_request, infer_once
from server_process import Server

MIB = 1 << 20
# A user that has no other process.
NOBODY_ELSE = 54321


class StarvedServer(Server):
    """A server with a limit of its process, which it sets itself before it becomes the server."""

    def __init__(self, option, limit, *flags, become=(), server=None):
        """`become`: a command in front of the server's that makes it another user's. `server`: another copy of the program."""
        program, *rest = *become, "prlimit", f"--{option}={limit}:{limit}", server or server_process.SERVER
        super().__init__(*rest, "--grpc_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0", "--device=cpu", *flags,
                         program=program, has_defaults=False)

    def outcome(self):
        """Waits until it serves or has ended; True or its exit code."""
        try:
            self.wait_for("serving gRPC on")
            return True
        except AssertionError:
            return self.exit_code()


class StartTest(unittest.TestCase):
    def assert_serves_or_says_why(self, server, sentence):
        """Returns whether it serves; if not, it has ended with 1 and one error line, which has the sentence."""
        outcome = server.outcome()
        if outcome is True:
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)
            return True
        self.assertEqual(outcome, 1, server.log)
        errors = [line for line in server.log if " E " in line]
        self.assertEqual(len(errors), 1, server.log)
        self.assertRegex(errors[0], sentence)
        return False

    def test_few_descriptors(self):
        served = []
        # The loader of programs itself needs four.
        for limit in (*range(4, 24, 2), 32, 48, 64):
            with self.subTest(limit), StarvedServer("nofile", limit) as server:
                served.append(self.assert_serves_or_says_why(
                    server, r"E cannot start: \d+ more file descriptors are needed, and \d+ are to be had \(ulimit -n\)$"))
        self.assertEqual(served, sorted(served))
        self.assertTrue(served[-1])

    def test_little_address_space(self):
        served = []
        for limit in (100, 120, 140, 160, 180, 220, 300, 1000):
            with self.subTest(limit), StarvedServer("as", limit * MIB, "--io_threads=2") as server:
                served.append(self.assert_serves_or_says_why(
                    server, r"E cannot start: (\d+ more bytes of address space are needed, .*\(ulimit -v, -d\)|no thread is to "
                            r"be had for the log)$"))
        self.assertEqual(served, sorted(served))
        self.assertFalse(served[0])
        self.assertTrue(served[-1])

    def test_few_processes(self):
        become = ("setpriv", f"--reuid={NOBODY_ELSE}", "--clear-groups")
        # Where that user may run it, wherever the tree lies.
        folder = self.enterContext(tempfile.TemporaryDirectory())
        os.chmod(folder, 0o755)
        program = shutil.copy(server_process.SERVER, folder)
        runs = (*become, "prlimit", "--nproc=4096", program, "--version")
        if os.getuid() != 0 or server_process.run(*runs).returncode != 0:
            server_process.skip(self, "the program cannot be run as a user without other processes")
        served = []
        for limit in (0, 1, 2, 4, 8, 12, 16, 200):
            # The limit does not bind root.
            with self.subTest(limit), StarvedServer("nproc", limit, "--io_threads=2", become=become, server=program) as server:
                served.append(self.assert_serves_or_says_why(
                    server, r"E cannot start: (\d+ more threads are needed, and \d+ are to be had \(ulimit -u, or pids.max of the "
                            r"control group\)|no thread is to be had for the log)$"))
        self.assertEqual(served, sorted(served))
        self.assertFalse(served[0])
        self.assertTrue(served[-1])

    def test_default_budget_is_a_quarter_of_the_limit(self):
        limit = 1 << 30
        for option in ("as", "data"):
            with self.subTest(option), StarvedServer(option, limit, "--io_threads=2") as server:
                self.assertEqual(server.metric("swiglu_memory_budget_bytes"), limit // 4)


class LoadTest(unittest.TestCase):
    def test_load_on_a_server_that_just_could_start_ends_nothing(self):
        # As little as a start needs.
        for limit in range(200, 2000, 40):
            with StarvedServer("as", limit * MIB, "--io_threads=2", "--memory_budget_bytes=64MiB") as server:
                if server.outcome() is not True:
                    continue
                result = subprocess.run(
                    [server_process.BENCH, f"--server={server.address}", "--json", "--duration=2s", "--warm_up=0",
                     "--request_bytes=4MiB", "--in_flight=64", "--connections=4"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=server_process.DEADLINE_S, check=False)
                self.assertGreater(json.loads(result.stdout)["requests"], 0, result.stdout)
                self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
                self.assertEqual(server.stop(), 0, server.log)
                print(f"it starts and serves with {limit} MiB of address space", flush=True)
                return
        self.fail("it never started")


if __name__ == "__main__":
    server_process.main()
