#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# A GPU that faults under the server: a kernel traps, or writes where nothing is, and the process says so, answers what it
# can, fails its health and is gone within five seconds, for whoever restarts it. Needs a GPU; the same on devices that only
# pretend is device_fault_test.py.
import pathlib
import shutil
import tempfile
import time
import unittest

import plain_grpc
import server_process
import tensor_files
from device_fault_test import (FAILED, INTERNAL, NEVER_RAN, NOT_SERVING, FaultServer, begin, break_under_load, watch)
from plain_grpc import Connection, forward_request, infer_once, served_health
from server_process import probe_health

# As in cuda_fault_server.cc.
TRAP, ILLEGAL_ADDRESS, TRAP_FIRST = 5001, 5002, 5003
# The longest that the server may take from the fault to its end.
LIMIT_S = 5


class CudaFaultTest(unittest.TestCase):
    def start(self, devices="0"):
        """Starts a server that serves; skips the test where those devices are not."""
        server = self.begin_start(devices)
        self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
        return server

    def begin_start(self, devices, *flags):
        """As start, but the server has served no request."""
        server = FaultServer("--device=cuda", f"--devices={devices}", *flags, program=server_process.CUDA_FAULT_SERVER)
        self.addCleanup(server.kill)
        line = server.wait_for(r"serving gRPC on|CUDA was asked for: .+|CUDA device \d+ does not exist; .+")
        if "serving" not in line.group():
            server_process.skip(self, line.group())
        return server

    def assert_ends(self, server, since, error):
        """The process ends within the limit, with code 70 and a log that names the error."""
        self.assertEqual(server.exit_code(), 70)
        seconds = time.monotonic() - since
        failed, = (line for line in server.log if "failed for good" in line)
        print(f"{failed.partition(' E ')[2]}; exit 70 after {seconds:.3f} s", flush=True)
        self.assertIn(error, failed)
        self.assertLess(seconds, LIMIT_S)

    def break_in_flight(self, num_elements, error):
        server = self.start()
        with Connection(server.address) as connection:
            watches = [watch(connection, service) for service in ("", "liveness")]
            running = begin(connection, num_elements)
            server.wait_for_metric(1, "swiglu_inflight_requests")
            queued = [begin(connection, 4) for _ in range(8)]
            self.assertEqual(running.status(), FAILED)
            since = time.monotonic()
            self.assertEqual({call.status() for call in queued}, {NEVER_RAN})
            for call in watches:
                self.assertEqual(served_health(call.message()), NOT_SERVING)
            self.assertEqual(probe_health(server.address, "liveness").returncode, 1)
        self.assert_ends(server, since, error)

    def test_trap_while_a_request_runs(self):
        self.break_in_flight(TRAP, "cudaErrorLaunchFailure")

    def test_illegal_address_while_a_request_runs(self):
        self.break_in_flight(ILLEGAL_ADDRESS, "cudaErrorIllegalAddress")

    def test_device_that_is_broken_before_the_launch(self):
        server = self.start()
        self.assertEqual(infer_once(server.address, forward_request(TRAP_FIRST)), FAILED)
        self.assert_ends(server, time.monotonic(), "cudaErrorLaunchFailure")

    def test_device_that_breaks_while_weights_are_loaded(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        tensor_files.write_mlp(pathlib.Path(folder, "m.safetensors"))
        server = self.begin_start("0", f"--mlp=m={folder}/m.safetensors")
        self.assert_ends(server, time.monotonic(), "cudaErrorLaunchFailure")

    def test_either_of_two_devices_ends_the_process(self):
        failed = set()
        for devices in ("0,1", "1,0"):
            server = self.start(devices)
            with Connection(server.address) as connection:
                watches = [watch(connection, service) for service in ("", "liveness")]
                running = begin(connection, TRAP)
                server.wait_for_metric(1, "swiglu_inflight_requests")
                # The sound device serves while the other one is on its way to the trap.
                self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
                failed.add(running.status())
                since = time.monotonic()
                for call in watches:
                    self.assertEqual(served_health(call.message()), NOT_SERVING)
            self.assert_ends(server, since, "cudaErrorLaunchFailure")
        self.assertEqual(failed, {FAILED, (INTERNAL, "device 1 failed")})

    def test_every_answer_of_two_devices_is_right_until_the_end(self):
        server = self.start("0,1")

        def break_device():
            with Connection(server.address) as connection:
                self.assertRegex(begin(connection, TRAP).status()[1], r"^device [01] failed$")

        break_under_load(self, server, break_device)

    def test_new_process_finds_the_device_whole(self):
        server = self.start()
        self.assertEqual(infer_once(server.address, forward_request(TRAP_FIRST)), FAILED)
        self.assertEqual(server.exit_code(), 70)
        self.assertEqual(self.start().stop(), 0)


if __name__ == "__main__":
    server_process.main()
