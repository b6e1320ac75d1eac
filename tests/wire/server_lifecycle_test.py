#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The server's life as others see it: health by its own client mode and by Watch, the two signals, drains that end and drains
# that do not.
import json
import signal
import socket
import struct
import subprocess
import tempfile
import unittest

import plain_grpc
import server_process
from plain_grpc import Connection, forward_request, infer_once, served_health
from server_process import Server, probe_health

SERVING, NOT_SERVING = 1, 2


def leave_answer_unread(connection):
    """Makes a request whose answer the server has but cannot send, because the window for it is closed; returns the call."""
    call = connection.open(plain_grpc.INFER)
    call.send(forward_request())
    call.wait_for_headers()
    return call


class HealthTest(unittest.TestCase):
    def test_serving_server_is_zero_for_every_known_service(self):
        with Server() as server:
            for service in (None, "", "inference.GRPCInferenceService", "liveness"):
                with self.subTest(service):
                    result = probe_health(server.address, service)
                    self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def test_unknown_service_is_one_and_is_named(self):
        with Server() as server:
            result = probe_health(server.address, "nope")
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr, f"swiglu-server: {server.address}: unknown service 'nope': the server's health is "
                                            "known as '', inference.GRPCInferenceService and liveness\n")

    def test_absent_server_is_one_with_one_line(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            result = probe_health(address)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, rf"\Aswiglu-server: {address}: [^\n]+\n\Z")

    def test_silent_server_is_one(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            result = probe_health(address)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, rf"\Aswiglu-server: {address}: [^\n]+\n\Z")


class ControlTest(unittest.TestCase):
    YES, NO = b"\x08\x01", b""

    def ask(self, server, method, message=b""):
        return plain_grpc.call_once(server.address, f"/inference.GRPCInferenceService/{method}", message)

    def test_ready_follows_readiness_and_live_liveness(self):
        model = plain_grpc.field(1, "swiglu_forward_fp16")
        with Server("--drain_delay=1h") as server:
            self.assertEqual(self.ask(server, "ServerReady"), self.YES)
            self.assertEqual(self.ask(server, "ModelReady", model), self.YES)
            self.assertEqual(self.ask(server, "ServerLive"), self.YES)
            server.signal(signal.SIGTERM)
            server.wait_for("not ready any more")
            self.assertEqual(self.ask(server, "ServerReady"), self.NO)
            self.assertEqual(self.ask(server, "ModelReady", model), self.NO)
            self.assertEqual(self.ask(server, "ServerLive"), self.YES)

    def test_metadata_names_the_server_and_the_version_of_the_build(self):
        version = server_process.run(server_process.SERVER, "--version").stdout.split()[1]
        with Server() as server:
            metadata = self.ask(server, "ServerMetadata")
        self.assertTrue(metadata.startswith(plain_grpc.field(1, "swiglu-server") + plain_grpc.field(2, version)), metadata)

    def test_model_is_version_1_of_platform_swiglu(self):
        with Server() as server:
            metadata = self.ask(server, "ModelMetadata", plain_grpc.field(1, "swiglu_backward_bf16"))
        expected = b"".join(plain_grpc.field(number, text) for number, text in
                            ((1, "swiglu_backward_bf16"), (2, "1"), (3, "swiglu")))
        self.assertTrue(metadata.startswith(expected), metadata)


class SignalTest(unittest.TestCase):
    def test_either_signal_drains_and_exits_with_zero(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name), Server() as server:
                self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
                server.signal(number)
                self.assertEqual(server.exit_code(), 0)
                self.assertRegex(server.log[4], rf" I received {number.name}$")
                self.assertRegex(server.log[-1], r" I drained; exiting$")

    def test_order_that_comes_twice_is_one(self):
        for numbers in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGINT,) * 3):
            with self.subTest(numbers), Server() as server, Connection(server.address, window_bytes=0) as connection:
                call = leave_answer_unread(connection)
                for number in numbers:
                    server.signal(number)
                server.wait_for("serving on for 0$")
                connection.set_window(65535)
                self.assertEqual(call.status(), (plain_grpc.OK, ""))
                self.assertEqual(server.exit_code(), 0, server.log)
                self.assertRegex(server.log[-1], r" I drained; exiting$")

    def test_second_signal_in_the_drain_delay_exits_at_once_with_one(self):
        with Server("--drain_delay=1h") as server:
            server.wait_for("serving gRPC on")
            server.signal(signal.SIGTERM)
            server.wait_for("serving on for 1h$")
            server.force(signal.SIGINT)
            self.assertEqual(server.exit_code(), 1)
            self.assertRegex(server.log[-1], r" W second signal: exiting at once$")

    def test_second_signal_in_the_drain_exits_at_once_with_one(self):
        with Server("--drain_timeout=1h") as server, Connection(server.address, window_bytes=0) as connection:
            leave_answer_unread(connection)
            server.signal(signal.SIGTERM)
            server.wait_for("serving on for 0$")
            server.force(signal.SIGTERM)
            self.assertEqual(server.exit_code(), 1)
            self.assertRegex(server.log[-1], r" W second signal: exiting at once$")

    def test_drain_timeout_exits_with_one_and_counts_what_was_cut_off(self):
        with Server("--drain_timeout=50ms", "--max_queue_delay=10s") as server, Connection(server.address) as connection:
            for _ in range(2):
                connection.open(plain_grpc.INFER).send(forward_request())
            while server.metric("swiglu_queued_requests") < 2:
                self.assertTrue(server.is_running())
            self.assertEqual(server.stop(), 1)
            self.assertRegex(server.log[-1], r" E drain timeout of 50ms passed: 2 requests cut off$")

    def test_drain_timeout_with_nothing_left_but_answers_exits_with_zero(self):
        with Server("--drain_timeout=50ms") as server, Connection(server.address, window_bytes=0) as connection:
            leave_answer_unread(connection)
            leave_answer_unread(connection)
            self.assertEqual(server.stop(), 0)
            self.assertRegex(server.log[-2], r" W drain timeout passed: answers not taken by their callers: 2$")

    def test_answers_that_nobody_takes_hold_up_a_drain_for_seconds(self):
        flags = ("--drain_timeout=1h", "--stall_timeout=1h")
        with Server(*flags) as server, Connection(server.address, window_bytes=0) as connection:
            leave_answer_unread(connection)
            stream = connection.open(plain_grpc.STREAM_INFER)
            stream.send(forward_request(), last=False)
            stream.wait_for_headers()
            self.assertEqual(server.stop(), 0)
            self.assertRegex(server.log[-1], r" I drained; exiting$")

    # gRPC's write of the answer waits until the peer reads.
    def test_peer_that_reads_nothing_does_not_hold_up_the_exit(self):
        message = forward_request(num_elements=500_000)
        with tempfile.TemporaryDirectory() as folder:
            for address in ("127.0.0.1:0", f"unix:{folder}/socket"):
                with (self.subTest(address), Server(f"--grpc_address={address}", "--drain_timeout=50ms") as server,
                      Connection(server.address) as connection):
                    connection.widen(1 << 30)
                    call = connection.open(plain_grpc.INFER)
                    call.pour(struct.pack(">BI", 0, len(message)) + message, last=True)
                    while not server.metric("swiglu_requests_total", model="swiglu_forward_fp32", code="OK"):
                        self.assertTrue(server.is_running())
                    self.assertEqual(server.stop(), 0)
                    self.assertRegex(server.log[-1], r" I drained; exiting$")


class DrainTest(unittest.TestCase):
    def test_drain_delay_serves_on_while_not_serving(self):
        with Server("--drain_delay=1h") as server:
            self.assertEqual(probe_health(server.address).returncode, 0)
            server.signal(signal.SIGTERM)
            server.wait_for("not ready any more")
            for service in ("", "inference.GRPCInferenceService"):
                result = probe_health(server.address, service)
                self.assertEqual(result.returncode, 1)
                self.assertEqual(result.stderr, f"swiglu-server: {server.address}: NOT_SERVING\n")
            self.assertEqual(probe_health(server.address, "liveness").returncode, 0)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.metric("swiglu_ready"), 0)

    def test_drain_begins_when_the_delay_is_over(self):
        with Server("--drain_delay=50ms") as server:
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0)
            self.assertRegex(server.log[-2], r" I not ready any more; serving on for 50ms$")
            self.assertRegex(server.log[-1], r" I drained; exiting$")

    def test_watch_sees_the_change_and_then_the_drain(self):
        with Server() as server:
            with Connection(server.address) as connection:
                call = connection.open(plain_grpc.WATCH)
                call.send(b"")
                self.assertEqual(served_health(call.message()), SERVING)
                server.signal(signal.SIGTERM)
                self.assertEqual(served_health(call.message()), NOT_SERVING)
                self.assertEqual(call.status(), (plain_grpc.UNAVAILABLE, "server is draining"))
            self.assertEqual(server.exit_code(), 0)

    def test_idle_stream_ends_as_unavailable_with_pushback(self):
        with Server() as server:
            with Connection(server.address) as connection:
                call = connection.open(plain_grpc.STREAM_INFER)
                call.send(forward_request(), last=False)
                self.assertIsNotNone(call.message())
                server.signal(signal.SIGTERM)
                self.assertEqual(call.status(), (plain_grpc.UNAVAILABLE, "server is draining"))
                self.assertGreater(int(dict(call.headers)["grpc-retry-pushback-ms"]), 0)
            self.assertEqual(server.exit_code(), 0)

    def test_call_whose_message_never_came_ends_as_unavailable(self):
        with Server() as server:
            with Connection(server.address) as connection:
                call = connection.open(plain_grpc.INFER)
                # An answer on the same connection shows that the server has seen the call before it.
                other = connection.open(plain_grpc.INFER)
                other.send(forward_request())
                self.assertEqual(other.status(), (plain_grpc.OK, ""))
                server.signal(signal.SIGTERM)
                self.assertEqual(call.status(), (plain_grpc.UNAVAILABLE, "server is draining"))
            self.assertEqual(server.exit_code(), 0)

    def test_accepted_request_is_answered_to_its_end(self):
        with Server() as server:
            with Connection(server.address, window_bytes=0) as connection:
                call = leave_answer_unread(connection)
                with Connection(server.address) as other:
                    watch = other.open(plain_grpc.WATCH)
                    watch.send(b"")
                    self.assertIsNotNone(watch.message())
                    server.signal(signal.SIGTERM)
                    self.assertEqual(watch.status()[1], "server is draining")
                self.assertEqual(infer_once(server.address, forward_request()),
                                 (plain_grpc.UNAVAILABLE, "server is draining"))
                self.assertFalse(call.ended)
                connection.set_window(65535)
                self.assertIn(b"swiglu_forward_fp32", call.message())
                self.assertEqual(call.status(), (plain_grpc.OK, ""))
            self.assertEqual(server.exit_code(), 0)

    def test_half_a_message_does_not_hold_up_the_exit(self):
        with Server() as server, Connection(server.address) as connection:
            call = connection.open(plain_grpc.INFER)
            call.send(forward_request()[:20], last=False, announced=1000)
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0)

    def test_messages_that_cross_the_drain_are_answered_or_unavailable(self):
        for method, last in ((plain_grpc.INFER, True), (plain_grpc.STREAM_INFER, True), (plain_grpc.STREAM_INFER, False)):
            for attempt in range(6):
                with self.subTest(method, last=last, attempt=attempt), Server() as server:
                    statuses = self.cross_the_drain(server, method, last)
                    self.assertEqual(server.exit_code(), 0, server.log)
                    self.assertLessEqual(statuses, {(plain_grpc.OK, ""), (plain_grpc.UNAVAILABLE, "server is draining")})

    # A call that comes after the server has begun to end gets no answer of ours.
    def test_calls_that_come_until_the_very_end_are_unavailable(self):
        with tempfile.TemporaryDirectory() as folder:
            for address in ("127.0.0.1:0", f"unix:{folder}/socket"):
                with self.subTest(address), Server(f"--grpc_address={address}") as server:
                    load = subprocess.Popen(
                        [server_process.BENCH, f"--server={server.address}", "--json", "--duration=3s", "--warm_up=0",
                         "--request_bytes=1KiB", "--in_flight=32"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                    while server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK") < 100:
                        self.assertIsNone(load.poll())
                    server.signal(signal.SIGTERM)
                    self.assertEqual(server.exit_code(), 0)
                    result = json.loads(load.communicate(timeout=server_process.DEADLINE_S)[0])
                    self.assertGreater(result["requests"], 0)
                    self.assertEqual(set(result["errors"]), {"UNAVAILABLE"}, result)

    def cross_the_drain(self, server, method, last):
        """Opens calls, signals the server and only then sends their messages; returns the statuses that came."""
        statuses = set()
        with Connection(server.address) as connection:
            calls = [connection.open(method) for _ in range(50)]
            seen = connection.open(plain_grpc.INFER)
            seen.send(forward_request())
            self.assertEqual(seen.status(), (plain_grpc.OK, ""))
            server.signal(signal.SIGTERM)
            try:
                for call in calls:
                    call.send(forward_request(), last)
                for call in calls:
                    statuses.add(call.status())
            except ConnectionError:
                pass  # the server's exit code says whether that was right
        return statuses


if __name__ == "__main__":
    server_process.main()
