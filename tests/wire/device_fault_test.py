#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The server's end when a device fails for good, and its going on when a device is short of memory: the program itself over
# devices that fail when they are told to (fault_server.cc). What a real device says and does is in cuda_fault_test.py.
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

import contract
import plain_grpc
import server_process
import tensor_files
from plain_grpc import Connection, forward_request, infer_once, served_health
from server_process import Server, probe_health

NOT_SERVING = 2
INTERNAL = 13
# From that number of elements on the devices hold a batch.
HELD = 1000
# So many small answers fit the window of a connection.
CALLS_OF_A_CONNECTION = 100
FAILED = (INTERNAL, "device 0 failed")
# The longest that the program may live on, as docs/operations/running.md promises: four seconds and its last words.
END_WITHIN_S = 5
NEVER_RAN = (plain_grpc.UNAVAILABLE, "device 0 failed before the request ran")


class FaultServer(Server):
    """A server over devices that fail."""

    def __init__(self, *flags, program=None):
        super().__init__("--lanes_per_device=1", *flags, program=program or server_process.FAULT_SERVER, stdin=subprocess.PIPE)


def begin(connection, num_elements):
    """Begins a request."""
    call = connection.open(plain_grpc.INFER)
    call.send(forward_request(num_elements))
    return call


def hold(server, connection, device):
    """Begins a request that `device` then holds."""
    call = begin(connection, HELD)
    server.wait_for(f"device {device} holds a batch")
    return call


def watch(connection, service):
    """Watches the health of a service; returns the call after its first message."""
    call = connection.open(plain_grpc.WATCH)
    call.send(plain_grpc.field(1, service))
    call.message()
    return call


class Caller(threading.Thread):
    """Sends request after request, each of other numbers, until one is not served or the connection is gone."""

    def __init__(self, address, seed):
        super().__init__(daemon=True)
        self._address = address
        self._random = random.Random(seed)
        self.num_right = 0
        self.served = threading.Event()  # an answer was right
        self.wrong = []  # answers with OK and other numbers than they should have
        self.end = None  # how the last call ended

    def run(self):
        try:
            while self.end is None:
                with Connection(self._address) as connection:
                    for _ in range(CALLS_OF_A_CONNECTION):
                        if self.end is None:
                            self._call(connection)
        except Exception as error:  # pylint: disable=broad-exception-caught  # for whoever joins
            self.end = error

    def _call(self, connection):
        num_elements = self._random.randint(1, 64)
        e, g = (contract.FP16.raw(self._random.gauss(0, 2) for _ in range(num_elements)) for _ in range(2))
        call = connection.open(plain_grpc.INFER)
        call.send(plain_grpc.infer_request("swiglu_forward_fp16", "FP16", [num_elements], {"e": e, "g": g}))
        message = call.message()
        status = call.status()
        if status != (plain_grpc.OK, ""):
            self.end = status
        elif contract.forward_faults(contract.FP16, e, g, *plain_grpc.raw_outputs(message)):
            self.wrong.append((e, g, message))
        else:
            self.num_right += 1
            self.served.set()


def break_under_load(test, server, break_device):
    """Breaks a device while callers are served; whatever says OK until the end has to be right."""
    callers = [Caller(server.address, seed) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        test.assertTrue(caller.served.wait(server_process.DEADLINE_S), server.log)
    break_device()
    test.assertEqual(server.exit_code(), 70)
    for caller in callers:
        caller.join(server_process.DEADLINE_S)
        test.assertEqual(caller.wrong, [])
        if isinstance(caller.end, Exception):
            test.assertIsInstance(caller.end, ConnectionError)
        else:
            code, sentence = caller.end
            test.assertRegex(f"{code} {sentence}", r"^(13 device [01] failed|14 device [01] failed before the request ran|"
                             r"14 server is draining)$")
    print(f"{sum(caller.num_right for caller in callers)} answers, all right, until a device failed", flush=True)


class StickyFaultTest(unittest.TestCase):
    def test_every_answer_is_right_until_the_end(self):
        for name, device in {"holding": 0, "serving": 1}.items():
            with self.subTest(name), FaultServer("--devices=0,1") as server, Connection(server.address) as connection:
                begin(connection, HELD)
                server.wait_for("device 0 holds a batch")
                break_under_load(self, server, lambda: server.command(f"sticky {device}"))

    def test_running_is_internal_queued_is_unavailable_and_the_exit_code_is_70(self):
        with FaultServer() as server, Connection(server.address) as connection:
            running = hold(server, connection, 0)
            queued = [begin(connection, 4) for _ in range(3)]
            server.wait_for_metric(3, "swiglu_queued_requests")
            server.command("sticky 0")
            self.assertEqual(running.status(), FAILED)
            for call in queued:
                self.assertEqual(call.status(), NEVER_RAN)
                self.assertGreater(int(dict(call.headers)["grpc-retry-pushback-ms"]), 0)
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 70)
            self.assertEqual(len([line for line in server.log if "failed for good" in line]), 1, server.log)
            self.assertRegex(server.log[-1], r" E exiting with code 70 after a device fault$")

    def test_fault_that_a_request_for_memory_meets_is_70(self):
        with FaultServer() as server:
            server.command("unpinnable 0")
            server.wait_for("obeyed: unpinnable 0")
            # No batch is ever formed: it fails before it is queued.
            self.assertEqual(infer_once(server.address, forward_request(4)), FAILED)
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 70)
            self.assertEqual(len([line for line in server.log if "failed for good" in line]), 1, server.log)

    def test_health_fails_at_once_liveness_too(self):
        with FaultServer("--devices=0,1") as server, Connection(server.address) as connection:
            watches = [watch(connection, service) for service in ("", "inference.GRPCInferenceService", "liveness")]
            hold(server, connection, 0)
            # The other device's batch never ends: the server has to end all the same.
            hold(server, connection, 1)
            server.command("sticky 0")
            for call in watches:
                self.assertEqual(served_health(call.message()), NOT_SERVING)
            self.assertEqual(probe_health(server.address, "liveness").returncode, 1)
            self.assertEqual(server.exit_code(), 70)

    def test_other_devices_do_not_keep_the_process(self):
        with FaultServer("--devices=0,1") as server, Connection(server.address) as connection:
            broken = hold(server, connection, 0)
            sound = hold(server, connection, 1)
            server.command("sticky 0")
            self.assertEqual(broken.status(), FAILED)
            # What ran on the other device ends as it ends.
            server.command("release 1")
            self.assertEqual(sound.status(), (plain_grpc.OK, ""))
            self.assertEqual(server.exit_code(), 70)

    def test_call_without_its_message_is_unavailable(self):
        with FaultServer() as server, Connection(server.address) as connection:
            silent = connection.open(plain_grpc.INFER)
            running = hold(server, connection, 0)
            server.command("sticky 0")
            self.assertEqual(running.status(), FAILED)
            self.assertEqual(silent.status(), (plain_grpc.UNAVAILABLE, "server is draining"))
            self.assertEqual(server.exit_code(), 70)

    def test_fault_in_the_drain_delay_is_70(self):
        with FaultServer("--drain_delay=1h") as server, Connection(server.address) as connection:
            hold(server, connection, 0)
            server.signal(signal.SIGTERM)
            server.wait_for("serving on for 1h$")
            server.command("sticky 0")
            self.assertEqual(server.exit_code(), 70)

    def test_fault_in_the_drain_is_70(self):
        with FaultServer("--drain_timeout=1h") as server, Connection(server.address) as connection:
            hold(server, connection, 0)
            server.signal(signal.SIGTERM)
            server.wait_for_metric(1, "swiglu_draining")
            server.command("sticky 0")
            self.assertEqual(server.exit_code(), 70)

    def test_fault_in_a_drain_that_a_caller_holds_up_is_70(self):
        with FaultServer("--drain_timeout=1h") as server, Connection(server.address, window_bytes=0) as connection:
            unread = begin(connection, 4)
            unread.wait_for_headers()
            with Connection(server.address) as other:
                hold(server, other, 0)
                server.signal(signal.SIGTERM)
                server.wait_for_metric(1, "swiglu_draining")
                server.command("sticky 0")
                self.assertEqual(server.exit_code(), 70)
            self.assertRegex(server.log[-1], r" E exiting with code 70: 4s after a device fault$")


class LoadFaultTest(unittest.TestCase):
    """A device fails for good while it gets the weights of an MLP."""

    def start(self):
        """Starts a server whose first load of weights waits."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        tensor_files.write_mlp(pathlib.Path(folder, "m.safetensors"))
        server = FaultServer("--mlp_control=on", f"--mlp=m={folder}/m.safetensors")
        self.addCleanup(server.kill)
        server.wait_for("layer 0 waits")
        return server

    def assert_ends(self, server):
        self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 70)
        self.assertEqual(len([line for line in server.log if "device 0 failed for good: simulated at weights" in line]), 1, server.log)
        self.assertRegex(server.log[-1], r" E exiting with code 70 after a device fault$")

    def test_fault_in_the_first_load_is_70(self):
        server = self.start()
        server.command("unloadable 0")
        self.assert_ends(server)

    def test_fault_in_a_later_load_is_70(self):
        server = self.start()
        server.command("load 0")
        server.wait_for("all weights are loaded")
        server.command("unloadable 0")
        server.wait_for("obeyed: unloadable 0")
        with Connection(server.address) as connection:
            call = connection.open(plain_grpc.LOAD)
            call.send(plain_grpc.field(2, "mlp_m"))
            self.assertEqual(call.status(), (INTERNAL, "the weights of 'mlp_m' stay as they were: device 0 failed"))
        self.assert_ends(server)


class HangingStartTest(unittest.TestCase):
    """The start hangs, as in a driver or a file system that hangs."""

    def test_a_stop_signal_ends_the_process(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name), FaultServer("--devices=9") as server:
                server.wait_for("device 9 hangs")
                server.signal(number)
                self.assertEqual(server.exit_code(), 0)
                self.assertRegex(server.log[-1], f" I received {number.name} before the server served; exiting$")


class UntakenLogTest(unittest.TestCase):
    """Nobody takes the log: the pipe behind stderr is full."""

    def test_fault_is_70(self):
        with FaultServer() as server, Connection(server.address) as connection:
            hold(server, connection, 0)
            server.stop_taking_log()
            server.command("sticky 0")
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 70)

    def test_fault_after_hangups_is_70(self):
        with FaultServer() as server, Connection(server.address) as connection:
            hold(server, connection, 0)
            server.stop_taking_log()
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGHUP)
            server.command("sticky 0")
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 70)

    def test_second_signal_is_1(self):
        with FaultServer("--drain_delay=1h") as server:
            server.wait_for("serving gRPC on")
            server.signal(signal.SIGTERM)
            server.wait_for("received SIGTERM$")
            server.stop_taking_log()
            server.force(signal.SIGINT)
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 1)


class ExceptionTest(unittest.TestCase):
    """An exception leaves a thread."""

    def test_no_memory_is_1_and_a_line(self):
        with FaultServer() as server:
            server.wait_for("serving gRPC on")
            server.command("lack 0")
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), 1)
            self.assertRegex(server.log[-1], " E exiting: out of memory$")

    def test_other_one_is_an_abort_and_a_line(self):
        with FaultServer() as server:
            server.wait_for("serving gRPC on")
            server.stop_taking_log()
            server.command("throw 0")
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), -signal.SIGABRT)
        with FaultServer() as server:
            server.wait_for("serving gRPC on")
            server.command("throw 0")
            self.assertEqual(server.exit_code(within_s=END_WITHIN_S), -signal.SIGABRT)
            self.assertRegex(server.log[-1], " E aborting: an exception: a fault of ours$")


class OutOfMemoryTest(unittest.TestCase):
    def test_smaller_parts_do(self):
        with FaultServer() as server:
            server.command("memory 300")
            server.wait_for("obeyed: memory 300")
            self.assertEqual(infer_once(server.address, forward_request(800)), (plain_grpc.OK, ""))
            # Whole and in halves it did not fit; in quarters it did.
            self.assertEqual(self.num_errors(server, "out_of_memory"), 3)
            self.assertEqual(server.stop(), 0)

    def test_too_little_for_any_part_is_resource_exhausted_and_not_for_good(self):
        with FaultServer() as server:
            server.command("memory 50")
            server.wait_for("obeyed: memory 50")
            self.assertEqual(infer_once(server.address, forward_request(800)),
                             (plain_grpc.RESOURCE_EXHAUSTED, "device 0 is out of memory"))
            # Whole, the first half, the first quarter, the first eighth.
            self.assertEqual(self.num_errors(server, "out_of_memory"), 4)
            self.assertEqual(self.num_errors(server, "sticky"), 0)
            self.assertEqual(infer_once(server.address, forward_request(50)), (plain_grpc.OK, ""))
            for service in ("", "liveness"):
                self.assertEqual(probe_health(server.address, service).returncode, 0)
            self.assertEqual(server.stop(), 0)

    def num_errors(self, server, kind):
        return server.metric("swiglu_device_errors_total", device="0", kind=kind)


if __name__ == "__main__":
    server_process.main()
