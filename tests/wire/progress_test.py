#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The line of progress of swiglu and swiglu-bench, as a user at a terminal sees it, and that nothing of it comes to stdout.
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import tempfile
import time

import contract
import server_process
from server_process import DEADLINE_S, ServerTest
from tensor_files import write_npy

CLEAR = "\r\x1b[K"


class Terminal:
    """A program whose stderr is a terminal. As a context manager it ends with the block."""

    def __init__(self, *arguments):
        self._terminal, end = pty.openpty()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end, text=True)
        os.close(end)
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self._terminal)

    def read_until(self, wanted):
        """Reads what the terminal shows, until it shows `wanted` or the program has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while wanted is None or wanted not in self.shown:
            if not select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"the terminal never shows {wanted!r}: {self.shown!r}")
            try:
                self.shown += os.read(self._terminal, 4096).decode()
            except OSError:  # nobody has the other end open any more
                return

    def end(self):
        """Waits for the end of the program; returns its stdout."""
        self.read_until(None)
        return self.process.communicate(timeout=DEADLINE_S)[0]


class ProgressTest(ServerTest):
    def test_ctrl_c_wipes_the_line(self):
        address = self.server.address
        self.server.signal(signal.SIGSTOP)
        self.addCleanup(self.server.signal, signal.SIGCONT)
        with Terminal(server_process.CLIENT, "status", f"--server={address}") as status:
            status.read_until(", 1 s")
            status.process.send_signal(signal.SIGINT)
            self.assertEqual(status.end(), "")
            self.assertEqual(status.process.returncode, -signal.SIGINT)
            self.assertTrue(status.shown.endswith(f" s{CLEAR}"), status.shown)

    def test_commands_that_wait_say_so_until_their_end(self):
        with tempfile.TemporaryDirectory() as folder:
            file = write_npy(pathlib.Path(folder) / "e.npy", "FP32", [4], contract.FP32.raw([0.0, 1.0, 2.0, 3.0]))
            address = self.server.address
            self.server.signal(signal.SIGSTOP)
            self.addCleanup(self.server.signal, signal.SIGCONT)
            elsewhere = subprocess.Popen([server_process.CLIENT, "status", f"--server={address}", "--json"], text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(elsewhere.kill)
            with Terminal(server_process.CLIENT, "forward", f"--server={address}", f"--e={file}", f"--g={file}",
                          f"--out={folder}/h.npy", "--json") as forward, \
                    Terminal(server_process.CLIENT, "status", f"--server={address}", "--json") as status:
                for program in (forward, status):
                    program.read_until(", 1 s")
                self.server.signal(signal.SIGCONT)
                self.assertEqual(json.loads(forward.end())["op"], "forward")
                self.assertTrue(json.loads(status.end())["ready"])
                out, shown = elsewhere.communicate(timeout=DEADLINE_S)
        self.assertTrue(json.loads(out)["ready"])
        self.assertEqual(shown, "", "stderr is no terminal")
        for program in (forward, status):
            self.assertEqual(program.process.returncode, 0)
            self.assertTrue(program.shown.startswith(f"{CLEAR}waiting for the server, 1 s"), program.shown)
            self.assertTrue(program.shown.endswith(CLEAR), program.shown)

    def test_a_load_shows_how_far_it_is(self):
        with Terminal(server_process.BENCH, f"--server={self.server.address}", "--json", "--warm_up=0",
                      "--requests=1000000000") as program:
            program.read_until("/s")
            program.process.send_signal(signal.SIGTERM)
            out = program.end()
        self.assertEqual(program.process.returncode, 0)
        self.assertTrue(json.loads(out)["stopped"])
        self.assertRegex(program.shown, rf"\A\r\x1b\[Kmeasuring \[\.{{20}}\] \d+ of 1000000000 requests, \d+/s")
        self.assertTrue(program.shown.endswith(CLEAR), program.shown)

    def test_what_takes_less_than_a_second_shows_nothing(self):
        with Terminal(server_process.BENCH, f"--server={self.server.address}", "--warm_up=0", "--requests=10") as program:
            out = program.end()
        self.assertEqual((program.process.returncode, program.shown), (0, ""))
        self.assertIn("requests  10 in", out)


if __name__ == "__main__":
    server_process.main()
