#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# swiglu-bench as a program: its loads on the bare echo and on the server, what it prints, and how it ends.
import json
import pathlib
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

import server_process
from server_process import DEADLINE_S, Server

MODELS = [f"swiglu_{op}_{dtype}" for op in ("forward", "backward") for dtype in ("fp16", "bf16", "fp32")]
NO_SERVER = "127.0.0.1:1"


def bench(*flags):
    """Runs swiglu-bench to its end."""
    return server_process.run(server_process.BENCH, *flags)


def free_address():
    """Returns an address of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def start(*flags):
    """Starts swiglu-bench, as a terminal does: a script's background would have it ignore SIGINT."""
    return subprocess.Popen([server_process.BENCH, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


class Echo:
    """A running bare echo. As a context manager it ends with the block."""

    def __init__(self, *flags, address="127.0.0.1:0"):
        self.process = subprocess.Popen([server_process.BENCH, f"--serve_echo={address}", *flags],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().rpartition(" ")[2].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class BenchTest(unittest.TestCase):
    def load(self, address, *flags):
        """Runs a load that must succeed without an error and returns its JSON."""
        result = bench(f"--server={address}", "--json", *flags)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        parsed = json.loads(result.stdout)
        self.assertEqual((parsed["errors"], parsed["error_example"]), ({}, ""))
        return parsed


class EchoTest(BenchTest):
    def test_every_client_in_both_loops_gets_every_answer(self):
        # The echo knows messages of one size, so none may join requests.
        library = ("--client=library", "--coalesce_bytes=0")
        with Echo("--echo_threads=2") as echo:
            for client in (("--client=raw",), library, (*library, "--callers=2")):
                for loop in (("--in_flight=8",), ("--rate=2000",)):
                    with self.subTest(client=client, loop=loop):
                        result = self.load(echo.address, *client, *loop, "--requests=300", "--warm_up=0")
                        self.assertEqual(result["requests"], 300)
                        self.assertEqual(result["not_sent"], 0)

    def test_result_has_the_configuration_and_every_number(self):
        with Echo() as echo:
            result = self.load(echo.address, "--requests=200", "--warm_up=0", "--in_flight=4",
                               f"--server_pid={echo.process.pid}")
        configuration = result["configuration"]
        self.assertEqual(configuration["server"], echo.address)
        self.assertEqual(configuration["model"], "swiglu_forward_fp16")
        self.assertEqual(configuration["request_bytes"], "64KiB")
        self.assertEqual((configuration["in_flight"], configuration["connections"]), (4, 4))
        elapsed = result["elapsed_seconds"]
        self.assertAlmostEqual(result["requests_per_s"], 200 / elapsed)
        self.assertAlmostEqual(result["gb_per_s_in"], 200 * 65536 / 1e9 / elapsed)
        self.assertAlmostEqual(result["gb_per_s_out"], 200 * 32768 / 1e9 / elapsed)
        latency = result["latency_ms"]
        self.assertEqual(list(latency), ["p50", "p90", "p99", "p99.9", "mean", "max"])
        self.assertTrue(0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"])
        self.assertLessEqual(latency["max"], elapsed * 1e3)
        self.assertGreater(result["client_cpu_seconds"], 0)
        server = result["server"]
        self.assertAlmostEqual(server["cpu_seconds_per_gb"], server["cpu_seconds"] / (200 * 98304 / 1e9))
        self.assertGreaterEqual(server["resident_high_water_bytes"], server["resident_bytes"])

    def test_load_ends_with_its_duration(self):
        with Echo() as echo:
            result = self.load(echo.address, "--duration=200ms", "--warm_up=50ms")
        self.assertEqual(result["elapsed_seconds"], 0.2)
        self.assertGreater(result["requests"], 0)

    def test_mix_is_told_apart_by_size(self):
        with Echo("--echo_bytes=1KiB,64KiB") as echo:
            result = self.load(echo.address, "--request_bytes=1KiB*3,64KiB", "--requests=400", "--warm_up=0")
        small, large = result["sizes"]
        self.assertEqual((small["request_bytes"], large["request_bytes"]), (1024, 65536))
        self.assertEqual(small["requests"] + large["requests"], 400)
        self.assertGreater(small["requests"], large["requests"])
        self.assertGreater(large["requests"], 0)

    def test_answers_of_every_model_have_the_form_of_the_real_ones(self):
        for model in MODELS:
            with self.subTest(model), Echo(f"--echo_model={model}", "--echo_queues=shared") as echo:
                self.load(echo.address, f"--model={model}", "--client=library", "--coalesce_bytes=0", "--requests=20",
                          "--warm_up=0")

    def test_open_loop_tells_what_it_could_not_send(self):
        with Echo("--echo_threads=1") as echo:
            result = self.load(echo.address, "--rate=1000000", "--arrivals=constant", "--max_outstanding=1",
                               "--duration=100ms", "--warm_up=0")
        self.assertGreater(result["not_sent"], 0)
        self.assertEqual(result["requests"] + result["not_sent"], 99_999)

    def test_sigterm_ends_it_with_zero(self):
        with Echo() as echo:
            self.load(echo.address, "--requests=10", "--warm_up=0")
            echo.process.send_signal(signal.SIGTERM)
            self.assertEqual(echo.process.wait(DEADLINE_S), 0)

    def test_unix_socket(self):
        with tempfile.TemporaryDirectory() as folder, Echo(address=f"unix:{folder}/s") as echo:
            self.load(echo.address, "--requests=10", "--warm_up=0")

    def test_address_in_use_is_one(self):
        with Echo() as echo:
            result = bench(f"--serve_echo={echo.address}")
            self.assertEqual((result.returncode, result.stderr),
                             (1, f"swiglu-bench: cannot listen on {echo.address}\n"))


class ServerTest(BenchTest):
    def test_every_model_by_both_clients(self):
        with Server() as server:
            for model in MODELS:
                for client in (("--client=raw",), ("--client=library",), ("--client=library", "--callers=2")):
                    with self.subTest(model=model, client=client):
                        result = self.load(server.address, f"--model={model}", *client, "--requests=20", "--warm_up=0")
                        self.assertEqual(result["requests"], 20)

    def test_checked_answers_are_those_of_the_formulas(self):
        with Server() as server:
            for model in MODELS:
                for callers in (0, 2):
                    with self.subTest(model=model, callers=callers):
                        result = self.load(server.address, f"--model={model}", "--client=library", f"--callers={callers}",
                                           "--check", "--request_bytes=384*3,1MiB", "--requests=100", "--warm_up=0")
                        self.assertEqual((result["checked"], result["computed"]), (98, 2))

    def test_library_sends_to_each_of_several_servers(self):
        with Server() as first, Server() as second:
            self.load(f"{first.address},{second.address}", "--client=library", "--coalesce_bytes=0", "--requests=200", "--warm_up=0")
            served = [server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK") for server in (first, second)]
        self.assertEqual(sum(served), 200)
        self.assertGreater(min(served), 0)

    def test_results_in_shared_memory_are_those_of_messages(self):
        with Server("--system_shared_memory=on") as server:
            for model in MODELS:
                for client in (("--client=raw",), ("--client=library",), ("--client=library", "--callers=2")):
                    with self.subTest(model=model, client=client):
                        result = self.load(server.address, f"--model={model}", *client, "--requests=100", "--warm_up=0",
                                            "--request_bytes=384*3,1MiB", "--shared_memory=system", "--check",
                                           "--in_flight=4")
                        self.assertEqual(result["requests"], 100)
                        self.assertIn(result["checked"], range(1, 5))
            regions = server_process.run(server_process.CLIENT, "regions", f"--server={server.address}", "--json")
        self.assertEqual(json.loads(regions.stdout)["regions"], [])

    def test_shared_memory_that_is_off_is_four(self):
        with Server() as server:
            result = bench(f"--server={server.address}", "--shared_memory=system", "--requests=1")
        self.assertEqual((result.returncode, result.stdout), (4, ""))
        self.assertRegex(result.stderr, r"\Aswiglu-bench: UNIMPLEMENTED: .*\n\Z")

    def test_use_of_the_machine_comes_from_the_metrics_page(self):
        with Server() as server:
            result = self.load(server.address, f"--metrics=127.0.0.1:{server.metrics_port}", "--requests=200",
                               "--warm_up=0")
            self.assertEqual(server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK"), 200)
        self.assertGreater(result["server"]["cpu_seconds"], 0)
        self.assertGreater(result["server"]["resident_bytes"], 1 << 20)

    def test_use_of_the_machine_is_that_of_the_window(self):
        flags = ("--warm_up=300ms", "--duration=100ms")
        with Server() as server:
            metrics = f"--metrics=127.0.0.1:{server.metrics_port}"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            results = [self.load(server.address, metrics, *flags) for _ in range(2)]
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used_by_server = server.metric("process_cpu_seconds_total")
        for result in results:
            self.assertGreater(result["server"]["cpu_seconds"], 0)
        self.assertLess(sum(result["server"]["cpu_seconds"] for result in results), used_by_server)
        # The warm-up is three times as long as the window.
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.assertLess(sum(result["client_cpu_seconds"] for result in results), 0.75 * used)

    def test_metrics_page_is_found_by_the_name_of_its_host(self):
        with Server() as server:
            result = self.load(server.address, f"--metrics=localhost:{server.metrics_port}", "--requests=10", "--warm_up=0")
        self.assertGreater(result["server"]["resident_bytes"], 1 << 20)

    def test_size_is_announced_unless_it_is_not_to_be(self):
        # A refusal before the message leaves the size of what was received at zero.
        for announced, received in (("true", 0), ("false", None)):
            with self.subTest(announced), Server("--max_request_bytes=1KiB") as server:
                bench(f"--server={server.address}", f"--announce_size={announced}", "--requests=1", "--warm_up=0")
                total = server.metric("swiglu_request_bytes_total", direction="in")
                self.assertEqual(total == 0, received == 0)

    def test_text_has_a_line_for_each_number(self):
        with Server() as server:
            result = bench(f"--server={server.address}", "--requests=10", "--warm_up=0", "--rate=1000",
                           f"--metrics=127.0.0.1:{server.metrics_port}")
        self.assertEqual(result.returncode, 0)
        names = [line.split()[0] for line in result.stdout.splitlines()[1:]]
        self.assertEqual(names, ["requests", "moved", "latency", "errors", "not", "client", "server"])


class FilesTest(BenchTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_histogram_has_the_latencies_of_the_result(self):
        file = self.folder / "latencies.hdr"
        file.write_text("old")
        with Echo() as echo:
            result = self.load(echo.address, "--requests=300", "--warm_up=0", f"--histogram={file}")
        lines = file.read_text().splitlines()
        self.assertEqual(lines[0].split(), ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"])
        rows = [line.split() for line in lines[2:] if not line.startswith("#")]
        self.assertEqual([float(figure) for figure in rows[-1]], [round(result["latency_ms"]["max"], 6), 1, 300])
        (median,) = (float(row[0]) for row in rows if row[1] == "0.500000000000")
        self.assertAlmostEqual(median, result["latency_ms"]["p50"], places=6)
        self.assertRegex(lines[-2], r"\A#\[Max     = +[\d.]+, Total count    = +300\]\Z")

    def test_sweep_has_a_load_for_each_size(self):
        plot = self.folder / "sweep.svg"
        with Echo("--echo_bytes=1KiB,64KiB") as echo:
            flags = (f"--server={echo.address}", "--sweep=1KiB,64KiB", "--requests=20", "--warm_up=0")
            table = bench(*flags, f"--plot={plot}")
            result = bench(*flags, "--json")
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        first, head, *rows = table.stdout.splitlines()
        self.assertIn("swiglu_forward_fp16 of 1KiB,64KiB, raw client", first)
        self.assertEqual(head.split()[:2], ["size", "requests/s"])
        self.assertEqual([row.split()[0] for row in rows], ["1KiB", "64KiB"])
        self.assertEqual([load["requests"] for load in json.loads(result.stdout)["sweep"]], [20, 20])
        drawing = xml.etree.ElementTree.parse(plot).getroot()
        self.assertEqual(len(drawing.findall(".//{http://www.w3.org/2000/svg}circle")), 6)

    def test_stop_ends_a_sweep_and_prints_what_it_has(self):
        with Server() as server:
            process = start(f"--server={server.address}", "--sweep=1KiB,2KiB", "--duration=1h", "--warm_up=0", "--json")
            self.addCleanup(process.kill)
            deadline = time.monotonic() + DEADLINE_S
            while server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK") < 40:
                self.assertLess(time.monotonic(), deadline, "the server gets no requests")
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=DEADLINE_S)
        self.assertEqual((process.returncode, err), (0, ""))
        (load,) = json.loads(out)["sweep"]
        self.assertTrue(load["stopped"])

    def test_file_that_cannot_be_written_is_one_before_any_load(self):
        path = f"{self.folder}/none/latencies.hdr"
        result = bench(f"--server={NO_SERVER}", f"--histogram={path}")
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (1, "", f"swiglu-bench: {path}: cannot write to its folder: No such file or directory\n"))


class EndTest(BenchTest):
    def assert_ends(self, result, code, pattern):
        """The program ended with `code` and one line on stderr."""
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertRegex(result.stderr, rf"\Aswiglu-bench: {pattern}\n\Z")

    def test_help_and_version_are_zero(self):
        self.assertRegex(bench("--version").stdout, r"\Aswiglu-bench \d+\.\d+\.\d+ \(.*\)\n\Z")
        result = bench("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("  --serve_echo\n", result.stdout)

    def test_bad_input_is_one(self):
        with Echo() as echo:
            self.assert_ends(bench(f"--server={echo.address}", f"--metrics={NO_SERVER}", "--requests=1", "--warm_up=0"),
                             1, f"no page http://{NO_SERVER}/metrics: no connection: Connection refused")

    def test_usage_is_two(self):
        self.assert_ends(bench("--bogus"), 2, "unknown flag '--bogus'; see swiglu-bench --help")

    def test_no_server_is_three(self):
        self.assert_ends(bench(f"--server={NO_SERVER}"), 3, f"UNAVAILABLE: no connection to {NO_SERVER}: .*")

    def test_answers_that_are_not_those_of_the_formula_are_four(self):
        with Echo() as echo:
            self.assert_ends(bench(f"--server={echo.address}", "--client=library", "--coalesce_bytes=0", "--check",
                                   "--requests=10", "--warm_up=0"),
                             4, "DATA_LOSS: wrong result: element 0 of output 'h' of 'swiglu_forward_fp16' is .*; "
                                "the formula gives .* to .*")

    def test_no_second_server_is_three_and_named(self):
        with Echo() as echo:
            self.assert_ends(bench(f"--server={echo.address},{NO_SERVER}", "--client=library"), 3,
                             f"{NO_SERVER}: UNAVAILABLE: no connection to {NO_SERVER}: .*")

    def test_only_failures_are_four_and_counted_by_code(self):
        with Server("--max_request_bytes=1KiB") as server:
            result = bench(f"--server={server.address}", "--requests=5", "--warm_up=0", "--json")
        self.assert_ends(result, 4, "RESOURCE_EXHAUSTED: request of .* bytes exceeds max_request_bytes 1024")
        parsed = json.loads(result.stdout)
        self.assertEqual(parsed["errors"], {"RESOURCE_EXHAUSTED": 5})
        self.assertEqual(parsed["latency_ms"], dict.fromkeys(("p50", "p90", "p99", "p99.9", "mean", "max")))

    def test_some_failures_are_zero_and_counted_by_code(self):
        with Echo("--echo_bytes=1KiB") as echo:
            result = bench(f"--server={echo.address}", "--request_bytes=1KiB,64KiB", "--requests=100", "--warm_up=0",
                           "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        parsed = json.loads(result.stdout)
        self.assertGreater(parsed["requests"], 0)
        self.assertEqual(parsed["requests"] + parsed["errors"]["INVALID_ARGUMENT"], 100)

    def start_load(self, *flags):
        """Starts swiglu-bench against a server of its own, and returns it once answers to its requests have come."""
        server = self.enterContext(Server())
        process = start(f"--server={server.address}", *flags)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + DEADLINE_S
        # More than are under way at once in a closed loop.
        while server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK") < 40:
            self.assertLess(time.monotonic(), deadline, "the server gets no requests")
        return process

    def test_signal_ends_it_early_and_prints_what_it_has(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for flags in (("--duration=1h",), ("--requests=1000000000",), ("--rate=200", "--duration=1h"),
                          ("--client=library", "--duration=1h"),
                          ("--client=library", "--callers=2", "--duration=1h")):
                with self.subTest(signal=number, flags=flags):
                    process = self.start_load("--json", "--warm_up=0", *flags)
                    # Twice, as from timeout(1), which signals its child and then the group.
                    process.send_signal(number)
                    process.send_signal(number)
                    out, err = process.communicate(timeout=DEADLINE_S)
                    self.assertEqual((process.returncode, err), (0, ""))
                    result = json.loads(out)
                    self.assertTrue(result["stopped"])
                    self.assertGreater(result["requests"], 0)
                    self.assertEqual(result["errors"], {})

    def test_signal_in_the_warm_up_prints_that_there_is_nothing(self):
        process = self.start_load("--json", "--warm_up=1h")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
        self.assertEqual((process.returncode, err), (0, ""))
        result = json.loads(out)
        self.assertEqual((result["requests"], result["requests_per_s"], result["latency_ms"]["p50"]), (0, None, None))

    def test_signal_ends_it_at_once_when_it_measures_nothing(self):
        # It waits for a server, and while it does has the signal blocked in the thread that runs.
        process = start(f"--server={free_address()}", "--wait_ready=1h")
        self.addCleanup(process.kill)
        blocked = pathlib.Path(f"/proc/{process.pid}/status")
        deadline = time.monotonic() + DEADLINE_S
        while not int(re.search(r"^SigBlk:\s+(\w+)$", blocked.read_text(), re.MULTILINE).group(1), 16) & 2:
            self.assertLess(time.monotonic(), deadline, "it never blocks the signal")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
        self.assertEqual((process.returncode, out, err), (-signal.SIGINT, "", ""))

    def test_wait_ready_waits_for_a_server_that_comes_later(self):
        address = free_address()
        with subprocess.Popen([server_process.BENCH, f"--server={address}", f"--wait_ready={DEADLINE_S}s",
                               "--requests=1", "--warm_up=0"], stdout=subprocess.PIPE, text=True) as waiting:
            with Echo(address=address):
                self.assertEqual(waiting.wait(DEADLINE_S), 0)


if __name__ == "__main__":
    server_process.main()
