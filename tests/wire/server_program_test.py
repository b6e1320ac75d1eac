#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The server as a program: its command line, its addresses, its log and its metrics page, each run as a user runs it.
import json
import pathlib
import re
import socket
import tempfile
import unittest

import server_process
from server_process import Server, probe_health

FLAGS = ("grpc_address", "metrics_address", "device", "devices", "lanes_per_device", "io_threads", "memory_budget_bytes",
         "max_request_bytes", "max_queued_requests", "max_queue_delay", "stall_timeout", "max_connections", "unix_socket_mode", "drain_delay", "drain_timeout",
         "log_level", "log_format", "config", "health", "manual", "version", "help")


def run_server(*flags):
    """Runs a server that is expected to end by itself."""
    defaults = ("--grpc_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0", "--device=cpu")
    return server_process.run(server_process.SERVER, *defaults, *flags)


class ProgramTest(unittest.TestCase):
    def assert_ends(self, result, code, sentence):
        """The program ended with `code` and with exactly one line on stderr, which ends with `sentence`."""
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertRegex(result.stderr, r"\A[^\n]+\n\Z")
        self.assertTrue(result.stderr.endswith(sentence + "\n"), f"{result.stderr!r} does not end with {sentence!r}")
        self.assertEqual(result.stdout, "")


class CommandLineTest(ProgramTest):
    def test_help_lists_every_flag_and_succeeds(self):
        result = server_process.run(server_process.SERVER, "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        listed = re.findall(r"^  --(\w+)", result.stdout, re.MULTILINE)
        self.assertEqual(set(FLAGS) - set(listed), set())

    def test_version_is_one_line_and_succeeds(self):
        result = server_process.run(server_process.SERVER, "--version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"\Aswiglu-server \d+\.\d+\.\d+ \(commit [\w-]+, cuda [\w.]+\)\n\Z")

    def test_unknown_flag_is_two_and_is_named(self):
        self.assert_ends(run_server("--max_speed=9"), 2, "unknown flag '--max_speed', see --help")

    def test_argument_that_is_no_flag_is_two_and_is_named(self):
        self.assert_ends(run_server("serve"), 2, "unexpected argument 'serve': only flags are taken, see --help")

    def test_bad_value_is_two_and_names_flag_and_value(self):
        for flag in ("--grpc_address=8001", "--grpc_address=localhost:70000", "--metrics_address=:x", "--device=tpu",
                     "--devices=0,0", "--lanes_per_device=65", "--io_threads=0", "--memory_budget_bytes=0",
                     "--memory_budget_bytes=9000000000GiB", "--max_request_bytes=2GiB", "--max_queued_requests=many",
                     "--max_queue_delay=1h", "--stall_timeout=0s", "--drain_delay=5", "--drain_timeout=-1s", "--log_level=loud", "--log_format=xml"):
            with self.subTest(flag):
                result = run_server(flag)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertRegex(result.stderr, rf"\Aswiglu-server: {re.escape(flag)}: want [^\n]+\n\Z")

    def test_environment_and_file_set_flags(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("# settings\nlog_format = json\nlog_level = debug\n")
            file.flush()
            with Server(f"--config={file.name}", "--log_level=info") as server:
                address = json.loads(server.wait_for("^.*serving gRPC on.*$").group())["msg"].split()[-1]
                variable = {"SWIGLU_SERVER_GRPC_ADDRESS": address, "SWIGLU_SERVER_PORT": "tcp://10.0.0.1:8001"}
                self.assertEqual(server_process.run(server_process.SERVER, "--health", env=variable).returncode, 0)
                self.assertEqual(server.stop(), 0)

    def test_mistake_in_environment_or_file_is_two_and_is_named(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("io_thread = 3\n")
            file.flush()
            self.assert_ends(run_server(f"--config={file.name}"), 2,
                             f"swiglu-server: {file.name}: unknown name 'io_thread', did you mean 'io_threads'? See --help")
        self.assert_ends(run_server("--config=/nonexistent"), 2, "swiglu-server: /nonexistent: cannot read: No such file or directory")
        result = server_process.run(server_process.SERVER, env={"SWIGLU_SERVER_DEVICE": "tpu"})
        self.assert_ends(result, 2, "swiglu-server: SWIGLU_SERVER_DEVICE=tpu: want auto, cpu or cuda")

    def test_line_break_in_a_value_stays_one_line(self):
        self.assert_ends(run_server("--log_level=a\nb"), 2,
                         r"--log_level=a\nb: want debug, info, warning or error")


class AddressTest(ProgramTest):
    def test_port_zero_takes_free_ports_and_logs_them(self):
        with Server() as server:
            self.assertRegex(server.address, r"^127\.0\.0\.1:[1-9]\d*$")
            self.assertGreater(server.metrics_port, 0)
            self.assertRegex(server.log[0], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z I swiglu-server \d+\.\d+\.\d+ ")
            self.assertRegex(server.log[1], r" I device cpu: asked for$")
            self.assertEqual(len(server.log), 4)
            self.assertEqual(probe_health(server.address).returncode, 0)
            self.assertEqual(server.stop(), 0)

    def test_taken_ports_are_one_and_name_address_and_reason(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.assert_ends(run_server(f"--grpc_address={address}"), 1,
                             f"cannot listen on {address}: Address already in use")
            self.assert_ends(run_server(f"--metrics_address={address}"), 1,
                             f"cannot listen on {address}: Address already in use")

    def test_second_server_on_the_port_of_a_server_is_one(self):
        with Server() as server:
            self.assert_ends(run_server(f"--grpc_address={server.address}"), 1,
                             f"cannot listen on {server.address}: Address already in use")
            self.assertEqual(probe_health(server.address).returncode, 0)

    def test_address_of_another_machine_is_one_and_names_the_reason(self):
        self.assert_ends(run_server("--grpc_address=192.0.2.1:0"), 1,
                         "cannot listen on 192.0.2.1:0: Cannot assign requested address")
        self.assert_ends(run_server("--metrics_address=192.0.2.1:0"), 1,
                         "cannot listen on 192.0.2.1:0: Cannot assign requested address")

    def test_cuda_without_a_device_is_one_and_names_what_is_missing(self):
        with Server("--device=cuda") as server:
            self.assertTrue(server.wait_for(r"serving gRPC on|CUDA was asked for"))
            if server.log[-1].find("CUDA was asked for") < 0:
                server_process.skip(self, "a CUDA device answers")
            self.assertEqual(server.exit_code(), 1)
            self.assertEqual(len(server.log), 1, server.log)
            self.assertRegex(server.log[0], r"E CUDA was asked for: (this build has no CUDA support|no NVIDIA driver|"
                                            r"no CUDA device found|the NVIDIA driver supports CUDA [\d.]+ at most; "
                                            r"this build needs [\d.]+|CUDA does not start: .+)$")


class UnixSocketTest(ProgramTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "s"
        self.address = f"unix:{self.path}"

    def leave_stale_socket(self):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(self.path))

    def test_server_serves_there_and_removes_the_file_at_its_end(self):
        with Server(f"--grpc_address={self.address}") as server:
            self.assertEqual(server.address, self.address)
            self.assertTrue(self.path.is_socket())
            self.assertEqual(probe_health(self.address).returncode, 0)
            self.assertEqual(server.stop(), 0)
            self.assertFalse(self.path.exists())

    def test_stale_file_is_replaced(self):
        self.leave_stale_socket()
        with Server(f"--grpc_address={self.address}") as server:
            self.assertEqual(server.address, self.address)
            self.assertEqual(probe_health(self.address).returncode, 0)

    def test_live_socket_is_one_and_stays(self):
        with Server(f"--grpc_address={self.address}") as server:
            self.assertEqual(server.address, self.address)
            self.assert_ends(run_server(f"--grpc_address={self.address}"), 1,
                             f"cannot listen on {self.address}: another server answers there")
            self.assertEqual(probe_health(self.address).returncode, 0)

    def test_file_that_is_no_socket_is_one_and_is_untouched(self):
        self.path.write_text("mine")
        self.assert_ends(run_server(f"--grpc_address={self.address}"), 1,
                         f"cannot listen on {self.address}: a file that is no socket is there")
        self.assertEqual(self.path.read_text(), "mine")


class LogTest(ProgramTest):
    def test_json_lines_parse_from_start_to_end(self):
        with Server("--log_format=json") as server:
            server.wait_for(r"serving gRPC on \S+\"}$")
            self.assertEqual(server.stop(), 0)
            lines = [json.loads(line) for line in server.log]
        for line in lines:
            self.assertEqual(set(line), {"ts", "level", "msg"})
            self.assertEqual(line["level"], "info")
            self.assertRegex(line["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(lines[-1]["msg"], "drained; exiting")

    def test_json_error_parses(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            result = run_server("--log_format=json", f"--grpc_address={address}")
        self.assertEqual(result.returncode, 1)
        line = json.loads(result.stderr)
        self.assertEqual((line["level"], line["msg"]), ("error", f"cannot listen on {address}: Address already in use"))

    def test_level_above_info_is_silent_in_good_times(self):
        with tempfile.TemporaryDirectory() as folder:
            address = f"unix:{folder}/s"
            with Server("--log_level=warning", f"--grpc_address={address}") as server:
                while server.is_running() and probe_health(address).returncode != 0:
                    pass
                self.assertEqual(server.stop(), 0)
                self.assertEqual(server.log, [])


class MetricsTest(ProgramTest):
    def test_page_is_prometheus_text_with_build_info_and_readiness(self):
        with Server() as server:
            response, page = server.get()
            self.assertEqual(response.status, 200)
            self.assertEqual(response.getheader("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
            self.assertEqual(int(response.getheader("Content-Length")), len(page.encode()))
            build_info, = (line for line in page.splitlines() if line.startswith("swiglu_build_info"))
            self.assertRegex(build_info, r'^swiglu_build_info\{version="\d+\.\d+\.\d+",commit="[\w-]+",cuda="[\w.]+"\} 1$')
            self.assertEqual(server.metric("swiglu_ready"), 1)
            self.assertEqual(server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK"), 0)

    def test_other_paths_and_methods_are_refused(self):
        with Server() as server:
            self.assertEqual(server.get("/")[0].status, 404)
            self.assertEqual(server.get("/metrics/x")[0].status, 404)
            self.assertEqual(server.get(method="POST")[0].status, 405)
            head, text = server.get(method="HEAD")
            self.assertEqual((head.status, text), (200, ""))

    def test_empty_address_turns_the_page_off(self):
        with Server("--metrics_address=") as server:
            self.assertEqual(probe_health(server.address).returncode, 0)
            self.assertFalse([line for line in server.log if "metrics" in line])


if __name__ == "__main__":
    server_process.main()
