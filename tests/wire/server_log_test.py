#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What the server's log says of requests that it did not serve: one line at most for each, few in a storm and none lost from
# the count, found again by the caller's id, and nothing in it that a caller could use or should not see there.
import json
import os
import random
import re
import signal
import socket
import tempfile
import time
import unicodedata
import unittest
import urllib.request

import plain_grpc
import server_process
from plain_grpc import Connection, field, forward_request, infer_once, infer_request
from server_process import Server

NOT_FOUND = 5
# The model of a request that is refused.
NOPE = "nope"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE_PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def refused_request(request_id=""):
    """A request for a model that is not there."""
    return infer_request(NOPE, "FP32", [1], {"e": bytes(4)}, request_id)


def fields(line):
    """The fields of a line of text about a request."""
    return dict(re.findall(r" (\w+)=(\S+)", line))


def request_lines(server):
    """The lines about requests so far."""
    return [line for line in server.log if "request" in line]


class RequestLineTest(unittest.TestCase):
    def test_refused_request_has_one_line_with_both_ids(self):
        with Server() as server:
            status = infer_once(server.address, refused_request("my-id"), [("x-request-id", "from-the-proxy")])
            self.assertEqual(status, (NOT_FOUND, server_process.UNKNOWN_MODEL))
            server.stop()
            line, = request_lines(server)
        self.assertRegex(line, rf" W request not served: {server_process.UNKNOWN_MODEL} code=NOT_FOUND id=my-id "
                               r"x_request_id=from-the-proxy peer=ipv4:127.0.0.1:\d+ us=\d+$")

    def test_line_has_the_trace_beside_the_other_ids(self):
        with Server() as server:
            infer_once(server.address, refused_request("my-id"), [("x-request-id", "from-the-proxy"), ("traceparent", TRACE_PARENT)])
            server.stop()
            line, = request_lines(server)
        self.assertIn(f" id=my-id x_request_id=from-the-proxy trace_id={TRACE_ID} peer=", line)

    def test_every_kind_of_line_about_a_request_has_the_trace(self):
        with Server("--log_level=debug", "--log_format=json", "--max_request_bytes=1000") as server:
            metadata = [("traceparent", TRACE_PARENT)]
            with Connection(server.address) as connection:
                served = connection.open(plain_grpc.INFER, metadata)
                served.send(forward_request())
                self.assertEqual(served.status(), (plain_grpc.OK, ""))
                early = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "1001"), *metadata])
                self.assertEqual(early.status()[0], plain_grpc.RESOURCE_EXHAUSTED)
                stream = connection.open(plain_grpc.STREAM_INFER, metadata)
                stream.send(refused_request())
                self.assertEqual(stream.status(), (plain_grpc.OK, ""))
                not_offered = connection.open("/inference.GRPCInferenceService/TraceSetting", metadata)
                self.assertEqual(not_offered.status()[0], plain_grpc.UNIMPLEMENTED)
                connection.open(plain_grpc.INFER, metadata).reset()
                server.wait_for('"CANCELLED"')
            server.stop()
            lines = [json.loads(line) for line in request_lines(server) if '"code"' in line]
        self.assertEqual({line["code"]: line.get("trace_id") for line in lines},
                         dict.fromkeys(("OK", "RESOURCE_EXHAUSTED", "NOT_FOUND", "UNIMPLEMENTED", "CANCELLED"), TRACE_ID))

    def test_malformed_trace_is_ignored(self):
        with Server() as server:
            self.assertEqual(infer_once(server.address, refused_request("my-id"), [("traceparent", TRACE_PARENT + "-")])[0], NOT_FOUND)
            server.stop()
            line, = request_lines(server)
        self.assertIn(" id=my-id peer=", line)

    def test_served_request_has_none(self):
        with Server() as server:
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            server.stop()
            self.assertEqual(request_lines(server), [])

    def test_request_refused_before_its_message_has_one(self):
        with Server("--max_request_bytes=100") as server:
            with Connection(server.address) as connection:
                call = connection.open(plain_grpc.INFER, [("swiglu-request-bytes", "101"), ("x-request-id", "early")])
                self.assertEqual(call.status()[0], plain_grpc.RESOURCE_EXHAUSTED)
            server.wait_for("x_request_id=early")
            server.stop()
            line, = request_lines(server)
        self.assertRegex(line, r" W request not served: request of 101 bytes exceeds max_request_bytes 100 "
                               r"code=RESOURCE_EXHAUSTED x_request_id=early peer=\S+ us=\d+$")

    def test_message_of_a_stream_has_its_own_id_and_the_streams(self):
        with Server() as server, Connection(server.address) as connection:
            call = connection.open(plain_grpc.STREAM_INFER, [("x-request-id", "the-stream")])
            call.send(refused_request("the-message"))
            self.assertIsNotNone(call.message())
            self.assertEqual(call.status(), (plain_grpc.OK, ""))
            server.stop()
            line, = request_lines(server)
        found = fields(line)
        self.assertEqual((found["id"], found["x_request_id"]), ("the-message", "the-stream"))

    def test_caller_that_went_away_is_information(self):
        with Server() as server, Connection(server.address) as connection:
            connection.open(plain_grpc.INFER).reset()
            server.wait_for(r" I request not served: cancelled by the caller before its message code=CANCELLED "
                            rf"peer={re.escape(connection.peer())} us=\d+$")


class PeerTest(unittest.TestCase):
    def peer_of_refusal(self, server, connection, method=plain_grpc.INFER):
        """What the line says of a request that is refused on that connection, with that method."""
        call = connection.open(method)
        call.send(refused_request())
        call.status()
        server.stop()
        line, = request_lines(server)
        return fields(line).get("peer")

    def test_refused_request_names_the_address_that_it_came_from(self):
        for method in (plain_grpc.INFER, plain_grpc.STREAM_INFER):
            with self.subTest(method), Server() as server, Connection(server.address) as connection:
                self.assertRegex(connection.peer(), r"^ipv4:127\.0\.0\.1:\d+$")
                self.assertEqual(self.peer_of_refusal(server, connection, method), connection.peer())

    def test_address_of_ipv6_is_in_plain_letters(self):
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                pass
        except OSError as error:
            server_process.skip(self, f"no IPv6 here: {error}")
        with Server("--grpc_address=[::1]:0") as server, Connection(server.address) as connection:
            self.assertEqual(self.peer_of_refusal(server, connection), connection.peer())

    def test_peer_on_a_unix_socket_is_said_to_be_there(self):
        with tempfile.TemporaryDirectory() as folder, Server(f"--grpc_address=unix:{folder}/socket") as server:
            with Connection(server.address) as connection:
                self.assertEqual(self.peer_of_refusal(server, connection), f"unix:pid={os.getpid()},uid={os.getuid()}")

    def test_no_line_names_it_where_that_is_off(self):
        with Server("--log_peers=off") as server, Connection(server.address) as connection:
            self.assertIsNone(self.peer_of_refusal(server, connection))
            self.assertNotIn("127.0.0.1:" + connection.peer().rpartition(":")[2], "\n".join(server.log))


class StormTest(unittest.TestCase):
    def test_storm_is_few_lines_that_count_all_the_rest(self):
        rounds, in_flight = 10, 200
        with Server() as server:
            begin = time.monotonic()
            with Connection(server.address) as connection:
                for _ in range(rounds):
                    calls = [connection.open(plain_grpc.INFER) for _ in range(in_flight)]
                    for call in calls:
                        call.send(refused_request())
                    for call in calls:
                        self.assertEqual(call.status()[0], NOT_FOUND)
            seconds = time.monotonic() - begin
            self.assertEqual(server.stop(), 0)
            lines = request_lines(server)
        about_one = [line for line in lines if "request not served" in line]
        left_out = sum(int(fields(line).get("left_out", 0)) for line in lines)
        print(f"{rounds * in_flight} refusals in {seconds:.1f} s: {len(lines)} lines", flush=True)
        self.assertEqual(len(about_one) + left_out, rounds * in_flight)
        # One in 100 ms, and one more a second that says how many were left out.
        self.assertLessEqual(len(lines), 3 + 11 * seconds)

    def test_rest_of_a_storm_is_counted_though_nothing_more_comes(self):
        with Server() as server:
            with Connection(server.address) as connection:
                calls = [connection.open(plain_grpc.INFER) for _ in range(50)]
                for call in calls:
                    call.send(refused_request())
                for call in calls:
                    call.status()
            server.wait_for(r" W lines about requests left out code=NOT_FOUND left_out=\d+$")


class InjectionTest(unittest.TestCase):
    EVIL = ('x","level":"info","msg":"all is well"}\n{"a":"', "a\r\n2026-01-31T12:00:00.000Z I all is well", "a code=OK", "\x1b[2J",
            "\x00\x7f", "é\u2028\u0085", "y" * 100, "x\u202eKO=edoc\u2066\u200f", "a\u200b\u200d\ufeff\u00ad\u3164\U000e0041")

    def assert_seen(self, text):
        """Nothing in the text hides, or makes it look other than it is."""
        self.assertEqual([c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") or c == "\u3164"], [], ascii(text))

    def test_no_id_breaks_or_forges_a_line(self):
        for log_format in ("text", "json"):
            for evil in self.EVIL:
                with self.subTest(log_format=log_format, id=evil), Server(f"--log_format={log_format}") as server:
                    infer_once(server.address, refused_request(evil))
                    server.stop()
                    line, = request_lines(server)
                    shown = json.loads(line) if log_format == "json" else fields(line)
                    self.assertEqual(shown["code"], "NOT_FOUND")
                    self.assertRegex(shown["id"], r"\A[!-~]{1,67}\Z")
                    self.assertNotRegex(shown["id"], r'["\\]')
                    self.assertTrue(line.isprintable(), line)

    def test_no_name_breaks_or_forges_a_line(self):
        for log_format in ("text", "json"):
            for evil in (*self.EVIL, "a' code=OK id=root us=1"):
                with self.subTest(log_format=log_format, model=evil), Server(f"--log_format={log_format}") as server:
                    self.assert_seen(infer_once(server.address, infer_request(evil, "FP32", [1], {"e": bytes(4)}))[1])
                    server.stop()
                    line, = request_lines(server)
                    self.assert_seen(line)
                    if log_format == "json":
                        self.assertEqual(json.loads(line)["code"], "NOT_FOUND")
                        self.assert_seen(json.loads(line)["msg"])
                    else:
                        self.assertEqual(re.findall(r"(\w+)=", line), ["code", "peer", "us"])
                        self.assertEqual(fields(line)["code"], "NOT_FOUND")


class SecretsTest(unittest.TestCase):
    def test_neither_tensors_nor_metadata_nor_files_are_in_the_log(self):
        secrets = ("TENSOR", "BEARER", "COOKIE", "shm_key", os.getcwd())
        metadata = [("authorization", "Bearer BEARER"), ("cookie", "COOKIE")]
        tensor = b"TENSOR_!"
        with Server("--log_level=debug") as server:
            good = infer_request("swiglu_forward_fp32", "FP32", [2], {"e": tensor, "g": tensor})
            self.assertEqual(infer_once(server.address, good, metadata), (plain_grpc.OK, ""))
            for shape in ([1], [3], [1 << 40]):
                bad = infer_request("swiglu_forward_fp32", "FP32", shape, {"e": tensor, "g": tensor})
                self.assertEqual(infer_once(server.address, bad, metadata)[0], plain_grpc.INVALID_ARGUMENT)
            self.assertEqual(infer_once(server.address, b"\x3a\x7f" + tensor, metadata)[0], plain_grpc.INVALID_ARGUMENT)
            with Connection(server.address) as connection:
                call = connection.open("/inference.GRPCInferenceService/SystemSharedMemoryRegister", metadata)
                call.send(field(1, "region") + field(2, "/shm_key"))
                self.assertEqual(call.status()[0], 12)
            server.stop()
            self.assertTrue(request_lines(server))
            log = "\n".join(server.log)
        for secret in secrets:
            self.assertNotIn(secret, log)


class UntakenLogTest(unittest.TestCase):
    """Nobody takes the log: the pipe behind stderr is full."""

    def test_nothing_waits_and_the_lines_come_in_order_once_they_are_taken(self):
        times = 60
        with Server() as server:
            server.wait_for("serving gRPC on")
            server.stop_taking_log()
            for i in range(times):
                self.assertEqual(infer_once(server.address, refused_request(f"id-{i:02}"))[0], NOT_FOUND)
                self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))
            self.assertEqual(server.metric("swiglu_dropped_log_lines_total"), 0)
            server.take_log_again()
            server.wait_for("id=id-00 ")
            self.assertEqual(server.stop(), 0)
            lines = request_lines(server)
            ids = [fields(line)["id"] for line in lines if "request not served" in line]
            self.assertEqual(ids, sorted(ids))
            self.assertEqual(len(ids) + sum(int(fields(line).get("left_out", 0)) for line in lines), times)
            self.assertRegex(server.log[-1], " I drained; exiting$")

    def test_drain_ends_with_zero(self):
        with Server() as server, Connection(server.address) as connection:
            server.stop_taking_log()
            call = connection.open(plain_grpc.STREAM_INFER)
            call.send(forward_request(), last=False)
            self.assertIsNotNone(call.message())
            server.signal(signal.SIGTERM)
            self.assertEqual(call.status(), (plain_grpc.UNAVAILABLE, "server is draining"))
            self.assertEqual(server.exit_code(), 0)

    def test_lines_that_cannot_be_written_are_counted(self):
        with tempfile.TemporaryDirectory() as folder:
            address = f"unix:{folder}/s"
            # Nobody else takes a port of this address; the log cannot tell a port.
            metrics = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}:8002"
            with Server("-c", 'exec "$@" 2>/dev/full', "sh", server_process.SERVER, "--device=cpu", f"--grpc_address={address}",
                        f"--metrics_address={metrics}", program="sh", has_defaults=False) as server:
                while server.is_running() and server_process.probe_health(address).returncode != 0:
                    pass
                infer_once(address, refused_request())
                # Four lines of the start and one of the request, which the log's thread may write a moment after the answer.
                end = time.monotonic() + server_process.DEADLINE_S
                while (num_dropped := dropped_lines(metrics)) < 5:
                    self.assertLess(time.monotonic(), end, f"{num_dropped} lines were counted")
                self.assertEqual(num_dropped, 5)
                self.assertEqual(server.stop(), 0)


def dropped_lines(metrics):
    """How many lines of the log were dropped, as the metrics page says."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=server_process.DEADLINE_S) as answer:
        page = answer.read().decode()
    return float(re.search(r"^swiglu_dropped_log_lines_total (\S+)$", page, re.MULTILINE).group(1))


def blocked_signals(pid):
    """The signals that the first thread of a process has blocked."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        mask = int(re.search(r"SigBlk:\s*(\w+)", file.read()).group(1), 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


class LevelTest(unittest.TestCase):
    def served_lines(self, server):
        """Makes a request that is served; returns the lines that this added."""
        address = server.address
        before = len(server.log)
        self.assertEqual(infer_once(address, forward_request()), (plain_grpc.OK, ""))
        return server.log[before:]

    def test_hangup_switches_to_debug_and_back(self):
        with Server() as server:
            self.assertEqual(self.served_lines(server), [])
            server.signal(signal.SIGHUP)
            server.wait_for(" I log level: debug$")
            self.served_lines(server)
            server.wait_for(r" D request served code=OK model=swiglu_forward_fp32 peer=\S+ us=\d+$")
            server.signal(signal.SIGHUP)
            server.wait_for(" I log level: info$")
            num_lines = len(server.log)
            self.served_lines(server)
            self.assertEqual(server.stop(), 0)
            self.assertRegex(server.log[num_lines], " I received SIGTERM$")

    def test_hangup_goes_back_to_the_level_of_the_flag(self):
        with Server("--log_level=error") as server:
            # It says nothing at this level. A process that takes hangups has them blocked for good, and not every signal, as
            # for a moment at its start.
            while blocked_signals(server.pid) & {signal.SIGHUP, signal.SIGUSR1} != {signal.SIGHUP}:
                time.sleep(0.01)
            server.signal(signal.SIGHUP)
            server.wait_for(" I log level: debug$")
            server.signal(signal.SIGHUP)
            server.wait_for(" I log level: error$")
            num_lines = len(server.log)
            self.assertEqual(server.stop(), 0)
            self.assertEqual(server.log[num_lines:], [])

    def test_hangup_in_a_drain_does_not_end_it(self):
        with Server("--drain_delay=1h") as server:
            server.wait_for("serving gRPC on")
            server.signal(signal.SIGTERM)
            server.wait_for("serving on for 1h$")
            server.signal(signal.SIGHUP)
            server.wait_for(" I log level: debug$")
            self.assertEqual(infer_once(server.address, forward_request()), (plain_grpc.OK, ""))

    def test_process_that_was_told_to_ignore_hangups_ignores_them(self):
        previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
        try:
            server = Server()
        finally:
            signal.signal(signal.SIGHUP, previous)
        with server:
            server.wait_for("serving gRPC on")
            server.signal(signal.SIGHUP)
            self.assertEqual(server.stop(), 0)
            self.assertFalse([line for line in server.log if "log level" in line])


if __name__ == "__main__":
    server_process.main()
