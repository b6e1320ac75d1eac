#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The command `swiglu` against the server, both as they are installed: results in files, exit codes, the one line that tells
# what went wrong, and that nothing is left behind when something did.
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import contract
import server_process
from contract import DTYPES, FP16, FP32
from server_process import Server, ServerTest
from tensor_files import num_elements, read_npy, read_safetensors, write_npy, write_safetensors


def normal(dtype, shape, seed):
    """A tensor of N(0, 2) as raw bytes."""
    source = random.Random(seed)
    return dtype.raw(source.gauss(0, 2) for _ in range(num_elements(shape)))


class CommandTest(ServerTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def swiglu(self, *arguments, server=None, **options):
        """Runs the command against the class's server, or another one."""
        return server_process.run(server_process.CLIENT, *map(str, arguments), f"--server={server or self.server.address}",
                                  **options)

    def npy(self, name, dtype=FP16, shape=(3, 5), seed=1):
        """Writes random numbers into the test's folder."""
        return write_npy(self.folder / name, dtype.name, shape, normal(dtype, shape, seed))

    def assert_fails(self, result, code, line):
        """The command ended with `code`, without output and with exactly this line."""
        self.assertEqual((result.returncode, result.stdout, result.stderr), (code, "", f"swiglu: {line}\n"))

    def assert_holds(self, *names):
        """The test's folder holds these files, and no temporary one either."""
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(names))


class ForwardTest(CommandTest):
    def test_npy_of_each_rank_is_right(self):
        for dtype in (FP16, FP32):
            for shape in ([], [7], [3, 5], [2, 3, 4], [0, 4]):
                with self.subTest(dtype=dtype.name, shape=shape):
                    e, g, h = (self.folder / name for name in ("e.npy", "g.npy", "h.npy"))
                    write_npy(e, dtype.name, shape, normal(dtype, shape, 1))
                    write_npy(g, dtype.name, shape, normal(dtype, shape, 2))
                    result = self.swiglu("forward", "--e", e, "--g", g, "--out", h, "--overwrite")
                    self.assertEqual((result.returncode, result.stderr), (0, ""))
                    written = read_npy(h)
                    self.assertEqual(written[:2], (dtype.name, shape))
                    self.assertEqual(
                        contract.forward_faults(dtype, read_npy(e)[2], read_npy(g)[2], written[2]), [])

    def test_literal_values_are_right(self):
        e = write_npy(self.folder / "e.npy", "FP32", [4], FP32.raw([0.0, 1.0, -1.0, 2.0]))
        g = write_npy(self.folder / "g.npy", "FP32", [4], FP32.raw([1.0, 1.0, 2.0, -0.5]))
        result = self.swiglu("forward", "--e", e, "--g", g, "--out", self.folder / "h.npy")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        h = [FP32.value(bits) for bits in FP32.bits(read_npy(self.folder / "h.npy")[2])]
        for found, expected in zip(h, (0.0, 0.73105858, -0.53788284, -0.88079708), strict=True):
            self.assertAlmostEqual(found, expected, places=6)

    def test_named_tensors_of_one_safetensors_file_are_right(self):
        shape = [4, 9]
        for dtype in DTYPES:
            with self.subTest(dtype.name):
                e, g = normal(dtype, shape, 1), normal(dtype, shape, 2)
                both = write_safetensors(self.folder / "both.safetensors", up=(dtype.name, shape, g),
                                         gate=(dtype.name, shape, e))
                out = self.folder / "h.safetensors"
                result = self.swiglu("forward", "--e", f"{both}:gate", "--g", f"{both}:up", "--out", out, "--overwrite")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertRegex(result.stdout, rf"\Aforward {dtype.name} \[4,9\]: [\d.]+ ms, [\d.]+ GB/s\n\Z")
                name, datatype, found_shape, h = read_safetensors(out)
                self.assertEqual((name, datatype, found_shape), ("h", dtype.name, shape))
                self.assertEqual(contract.forward_faults(dtype, e, g, h), [])

    def test_unix_socket_is_an_address(self):
        address = f"unix:{self.folder}/s"
        e = self.npy("e.npy")
        with Server(f"--grpc_address={address}") as server:
            self.assertEqual(server.address, address)
            result = self.swiglu("forward", "--e", e, "--g", e, "--out", self.folder / "h.npy", server=address)
            self.assertEqual((result.returncode, result.stderr), (0, ""))


class BackwardTest(CommandTest):
    def test_results_of_every_dtype_are_right(self):
        shape = [6, 7]
        for dtype in DTYPES:
            with self.subTest(dtype.name), tempfile.TemporaryDirectory() as out:
                raw = {name: normal(dtype, shape, seed) for seed, name in enumerate(("dw", "e", "g"))}
                inputs = [f"--{name}={write_safetensors(self.folder / f'{name}.safetensors', x=(dtype.name, shape, data))}"
                          for name, data in raw.items()]
                result = self.swiglu("backward", *inputs, f"--out_dir={out}", "--json")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                said = json.loads(result.stdout)
                self.assertEqual((said["op"], said["dtype"], said["shape"]), ("backward", dtype.name, shape))
                results = {}
                for name in ("h", "df", "de"):
                    self.assertEqual(said["files"][name], f"{out}/{name}.safetensors")
                    found = read_safetensors(pathlib.Path(said["files"][name]))
                    self.assertEqual(found[:3], (name, dtype.name, shape))
                    results[name] = found[3]
                self.assertEqual(contract.backward_faults(dtype, **raw, **results), [])

    def test_folder_is_made(self):
        e = self.npy("e.npy")
        result = self.swiglu("backward", "--dw", e, "--e", e, "--g", e, "--out_dir", self.folder / "new" / "gradients")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(sorted(os.listdir(self.folder / "new" / "gradients")), ["de.npy", "df.npy", "h.npy"])

    def test_npy_inputs_give_npy_results(self):
        inputs = [f"--{name}={self.npy(name + '.npy', seed=seed)}" for seed, name in enumerate(("dw", "e", "g"))]
        result = self.swiglu("backward", *inputs, f"--out_dir={self.folder}")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assert_holds("dw.npy", "e.npy", "g.npy", "h.npy", "df.npy", "de.npy")
        raw = {name: read_npy(self.folder / f"{name}.npy")[2] for name in ("dw", "e", "g", "h", "df", "de")}
        self.assertEqual(contract.backward_faults(FP16, **raw), [])


class BadFileTest(CommandTest):
    def test_file_that_cannot_be_used_is_one_and_is_named(self):
        good = self.npy("good.npy")
        truncated = self.folder / "truncated.npy"
        truncated.write_bytes(good.read_bytes()[:-1])
        swapped = self.folder / "swapped.npy"
        swapped.write_bytes(good.read_bytes().replace(b"<f2", b">f2"))
        double = self.folder / "double.npy"
        double.write_bytes(good.read_bytes().replace(b"<f2", b"<f8"))
        missing = self.folder / "missing.npy"
        (self.folder / "folder.npy").mkdir()
        cut = write_safetensors(self.folder / "cut.safetensors", x=("FP16", [15], bytes(30)))
        cut.write_bytes(cut.read_bytes()[:-2])
        cases = {
            missing: ": cannot open: No such file or directory",
            truncated: ": data has 29 bytes; shape [3,5] of FP16 needs 30",
            swapped: ": big-endian type '>f2' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)",
            double: ": type '<f8' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)",
            self.folder / "folder.npy": ": not a regular file",
            cut: ": tensor 'x' ends at byte 30 of the data, which has 28",
        }
        held = os.listdir(self.folder)
        for path, line in cases.items():
            with self.subTest(path.name):
                result = self.swiglu("forward", "--e", good, "--g", path, "--out", self.folder / "h.npy")
                self.assert_fails(result, 1, f"{path}{line}")
        self.assert_holds(*held)

    def test_unreadable_file_is_one_and_is_named(self):
        if os.geteuid() == 0:
            server_process.skip(self, "root may read any file")
        good, closed = self.npy("good.npy"), self.npy("closed.npy")
        closed.chmod(0)
        self.assert_fails(self.swiglu("forward", "--e", good, "--g", closed, "--out", self.folder / "h.npy"), 1,
                          f"{closed}: cannot open: Permission denied")

    def test_dtypes_and_shapes_that_differ_are_one_and_are_named(self):
        good = self.npy("good.npy")
        cases = {
            self.npy("wide.npy", FP32): "input 'g' is FP32; 'swiglu_forward_fp16' takes FP16",
            self.npy("turned.npy", shape=(5, 3)): "shape of 'g' is [5,3]; 'e' has [3,5]",
            self.npy("flat.npy", shape=(15,)): "shape of 'g' is [15]; 'e' has [3,5]",
        }
        for path, line in cases.items():
            with self.subTest(path.name):
                self.assert_fails(self.swiglu("forward", "--e", good, "--g", path, "--out", self.folder / "h.npy"), 1, line)
        self.assert_holds("good.npy", "wide.npy", "turned.npy", "flat.npy")

    def test_existing_result_is_one_and_untouched_unless_told(self):
        e, h = self.npy("e.npy"), self.folder / "h.npy"
        h.write_text("mine")
        arguments = ("forward", "--e", e, "--g", e, "--out", h)
        self.assert_fails(self.swiglu(*arguments), 1, f"{h}: exists already; --overwrite replaces it")
        self.assertEqual(h.read_text(), "mine")
        self.assertEqual(self.swiglu(*arguments, "--overwrite").returncode, 0)
        self.assertEqual(read_npy(h)[:2], ("FP16", [3, 5]))
        self.assert_holds("e.npy", "h.npy")

    def test_one_existing_result_of_backward_keeps_all_from_being_written(self):
        e, df = self.npy("e.npy"), self.folder / "df.npy"
        df.write_text("mine")
        result = self.swiglu("backward", "--dw", e, "--e", e, "--g", e, "--out_dir", self.folder)
        self.assert_fails(result, 1, f"{df}: exists already; --overwrite replaces it")
        self.assertEqual(df.read_text(), "mine")
        self.assert_holds("e.npy", "df.npy")

    def test_result_that_does_not_fit_is_one_and_leaves_nothing(self):
        e = self.npy("e.npy", FP32, (64, 64))
        h, folder = self.folder / "h.npy", self.folder / "folder"
        # By default a limit on the size of files is a signal, SIGXFSZ; with that ignored, an error of the write.
        for restore_signals in (True, False):
            with self.subTest(restore_signals=restore_signals):
                limit = {"restore_signals": restore_signals,
                         "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))}
                result = self.swiglu("forward", "--e", e, "--g", e, "--out", h, **limit)
                self.assert_fails(result, 1, f"{h}: cannot write: File too large")
                result = self.swiglu("backward", "--dw", e, "--e", e, "--g", e, "--out_dir", folder, **limit)
                self.assert_fails(result, 1, f"{folder}/h.npy: cannot write: File too large; results written: none")
                self.assert_holds("e.npy")

    def test_result_for_which_there_is_no_memory_is_one(self):
        shape = (1 << 30,)  # 2 GiB, of holes
        large = write_npy(self.folder / "large.npy", FP16.name, shape, b"")
        os.truncate(large, large.stat().st_size + 2 * shape[0])
        # Room for the program and for the mapped file, but not for the result.
        limit = (2 << 30) + (3 << 29)
        result = self.swiglu("forward", "--e", large, "--g", large, "--out", self.folder / "h.npy",
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(result.stderr, r"\Aswiglu: the call needs 4328521728 bytes of memory: twice the 2147483648 of the results, and "
                         r"33554432; this process may use \d+; cut the tensors into several calls\n\Z")
        self.assert_holds("large.npy")

    def test_overwriting_follows_links_and_keeps_modes(self):
        e, h = self.npy("e.npy"), self.folder / "h.npy"
        (self.folder / "real").mkdir()
        real = self.folder / "real" / "h.npy"
        real.write_text("mine")
        real.chmod(0o600)
        h.symlink_to("real/h.npy")
        result = self.swiglu("forward", "--e", e, "--g", e, "--out", h, "--overwrite")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertTrue(h.is_symlink())
        self.assertEqual(read_npy(real)[:2], ("FP16", [3, 5]))
        self.assertEqual(real.stat().st_mode & 0o7777, 0o600)
        self.assert_holds("e.npy", "h.npy", "real")
        self.assertEqual(os.listdir(self.folder / "real"), ["h.npy"])


class UsageTest(CommandTest):
    def test_mistake_is_two_and_is_named(self):
        for arguments, line in ((["walk"], "unknown command 'walk'"), (["status", "--fast"], "unknown flag '--fast'"),
                                (["forward", "--e=x.npy", "--g=x.npy"], "--out is missing"),
                                (["status", "--timeout=soon"],
                                 "--timeout takes a duration such as 10s or 500ms, not 'soon'")):
            with self.subTest(arguments):
                self.assert_fails(self.swiglu(*arguments), 2, f"{line}; see swiglu --help")

    def test_name_that_was_meant_is_told(self):
        self.assert_fails(self.swiglu("forwards"), 2, "unknown command 'forwards', did you mean 'forward'? See swiglu --help")
        self.assert_fails(self.swiglu("status", "--jsn"), 2, "unknown flag '--jsn', did you mean '--json'? See swiglu --help")


class ServerFailureTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.e = self.npy("e.npy", FP32, (100,))
        self.arguments = ("forward", "--e", self.e, "--g", self.e, "--out", self.folder / "h.npy")

    def tearDown(self):
        self.assert_holds("e.npy")

    def test_absent_server_is_three(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
            for arguments in (self.arguments, ("status",)):
                result = self.swiglu(*arguments, server=address)
                self.assertEqual((result.returncode, result.stdout), (3, ""))
                self.assertRegex(result.stderr, rf"\Aswiglu: UNAVAILABLE: no connection to {address}: [^\n]+\n\Z")

    def test_draining_server_is_three(self):
        with Server("--drain_delay=1h") as server:
            address = server.address
            server.signal(signal.SIGTERM)
            server.wait_for("not ready any more")
            self.assert_fails(self.swiglu(*self.arguments, server=address), 3, "the server is not ready")
            result = self.swiglu("status", server=address)
            self.assertEqual((result.returncode, result.stderr), (3, "swiglu: the server is not ready\n"))
            self.assertRegex(result.stdout, re.compile(r"^ready    no$", re.MULTILINE))
            self.assertRegex(result.stdout, re.compile(r"^swiglu_forward_fp16 +1 +UNAVAILABLE ", re.MULTILINE))

    def test_server_that_takes_only_small_messages_is_four(self):
        with Server("--max_request_bytes=500") as server:
            result = self.swiglu(*self.arguments, server=server.address)
            self.assertEqual((result.returncode, result.stdout), (4, ""))
            match = re.fullmatch(r"swiglu: RESOURCE_EXHAUSTED: request of (\d+) bytes exceeds max_request_bytes 500 "
                                 rf"\(from {server.address}\)\n", result.stderr)
            self.assertTrue(match, result.stderr)
            self.assertGreater(int(match.group(1)), 800)  # two tensors of 400 bytes

    def test_budget_that_is_too_small_is_four(self):
        with Server("--memory_budget_bytes=512") as server:
            result = self.swiglu(*self.arguments, server=server.address)
            self.assertEqual((result.returncode, result.stdout), (4, ""))
            self.assertRegex(result.stderr, r"\Aswiglu: RESOURCE_EXHAUSTED: request needs \d+ bytes at once; half of the "
                                            rf"memory budget of 512 bytes is the most \(from {server.address}\)\n\Z")

    def test_request_larger_than_the_server_takes_is_sent_in_parts(self):
        shape = (20, 1 << 20)  # 40 MiB each
        e = write_npy(self.folder / "large.npy", FP16.name, shape, bytes(40 << 20))
        with Server("--max_request_bytes=64MiB") as server:
            result = self.swiglu("forward", "--e", e, "--g", e, "--out", self.folder / "large_h.npy", server=server.address)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertGreater(server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK"), 1)
        (self.folder / "large.npy").unlink()
        (self.folder / "large_h.npy").unlink()


class StatusTest(CommandTest):
    def test_text_and_json_say_what_the_server_is_and_did(self):
        e = self.npy("e.npy")
        with Server() as server:
            for _ in range(3):
                result = self.swiglu("forward", "--e", e, "--g", e, "--out", self.folder / "h.npy", "--overwrite",
                                     server=server.address)
                self.assertEqual(result.returncode, 0)
            text = self.swiglu("status", server=server.address)
            said = self.swiglu("status", "--json", server=server.address)
        self.assertEqual((text.returncode, text.stderr, said.returncode, said.stderr), (0, "", 0, ""))
        version = r"\d+\.\d+\.\d+"
        self.assertRegex(text.stdout, rf"\Aserver   {server.address}\nprogram  swiglu-server {version}\n"
                                      r"ready    yes\ndevice   cpu \([^\n]+\)\n\nmodel +version +state ")
        self.assertRegex(text.stdout, re.compile(r"^swiglu_forward_fp16 +1 +READY +3 +0 +\d ", re.MULTILINE))
        status = json.loads(said.stdout)
        self.assertEqual((status["name"], status["ready"]), ("swiglu-server", True))
        self.assertRegex(status["version"], f"^{version}$")
        models = {model["name"]: model for model in status["models"]}
        self.assertEqual(sorted(models), sorted(f"swiglu_{op}_{dtype.name.lower()}" for op in ("forward", "backward")
                                                for dtype in DTYPES))
        self.assertEqual((models["swiglu_forward_fp16"]["requests"], models["swiglu_forward_fp16"]["failed"]), (3, 0))
        self.assertEqual(models["swiglu_backward_fp32"]["requests"], 0)


class InformationTest(CommandTest):
    def test_metadata_tells_of_the_server_and_of_a_model(self):
        said = json.loads(self.swiglu("metadata", "--json").stdout)
        self.assertEqual(said["name"], "swiglu-server")
        self.assertIn("statistics", said["extensions"])
        said = json.loads(self.swiglu("metadata", "--model=swiglu_backward_bf16", "--json").stdout)
        self.assertEqual([tensor["name"] for tensor in said["inputs"]], ["DW", "e", "g"])
        self.assertEqual({tensor["datatype"] for tensor in said["outputs"]}, {"BF16"})
        result = self.swiglu("metadata", "--model=nope")
        self.assertEqual(result.returncode, 4)
        self.assertTrue(result.stderr.startswith(f"swiglu: NOT_FOUND: {server_process.UNKNOWN_MODEL}"), result.stderr)

    def test_statistics_count_calls(self):
        e = self.npy("e.npy", FP32, (100,))
        self.assertEqual(self.swiglu("forward", "--e", e, "--g", e, "--out", self.folder / "h.npy").returncode, 0)
        said = json.loads(self.swiglu("statistics", "--model=swiglu_forward_fp32", "--json").stdout)
        (model,) = said["models"]
        self.assertEqual((model["name"], model["requests"], model["succeeded"], model["failed"]),
                         ("swiglu_forward_fp32", 1, 1, 0))
        self.assertEqual(model["request_ms"]["total"], model["request_ms"]["mean"])
        self.assertLessEqual(model["queue_ms"]["total"] + model["compute_ms"]["total"], model["request_ms"]["total"])
        self.assertEqual(len(json.loads(self.swiglu("statistics", "--json").stdout)["models"]), 6)


class BenchTest(CommandTest):
    def test_the_load_generator_beside_it_gets_the_arguments(self):
        run = server_process.run
        self.assertEqual(run(server_process.CLIENT, "bench", "--help").stdout, run(server_process.BENCH, "--help").stdout)
        wrong = run(server_process.CLIENT, "bench", "--duration=a b")
        self.assertEqual((wrong.returncode, wrong.stderr), (2, "swiglu-bench: --duration takes a time above 0, such as 5s or "
                                                               "500ms, not 'a b'; see swiglu-bench --help\n"))
        done = run(server_process.CLIENT, "bench", f"--server={self.server.address}", "--requests=5", "--warm_up=0", "--json")
        self.assertEqual(json.loads(done.stdout)["requests"], 5)

    def test_where_there_is_none_an_error_says_so(self):
        alone = self.folder / "swiglu"
        shutil.copy(server_process.CLIENT, alone)
        result = server_process.run(alone, "bench", "--help")
        self.assert_fails(result, 1, f"cannot run {self.folder}/swiglu-bench: No such file or directory; "
                                     "the load generator is installed with the component 'tools'")


class RegionsTest(CommandTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def test_region_of_a_load_is_listed_and_unregistered(self):
        load = subprocess.Popen([server_process.BENCH, f"--server={self.server.address}", "--shared_memory=system", "--rate=10",
                                 "--max_outstanding=1", "--request_bytes=4KiB", "--duration=1h"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            regions = []
            deadline = time.monotonic() + server_process.DEADLINE_S
            while not regions and load.poll() is None and time.monotonic() < deadline:
                regions = json.loads(self.swiglu("regions", "--json").stdout)["regions"]
            name = regions[0]["name"]
            self.assertRegex(name, r"\Aswiglu-[0-9a-f]{32}\Z")
            self.assertEqual(regions, [{"name": name, "kind": "system", "bytes": 6144, "device": None}])
            self.assert_fails(self.swiglu("regions", "--unregister=other"), 4, "NOT_FOUND: unknown region 'other'")
            self.assertEqual(self.swiglu("regions", f"--unregister={name}").returncode, 0)
            self.assertEqual(self.swiglu("regions").stdout, "kind             bytes device  name\n")
        finally:
            load.kill()
            load.wait()


if __name__ == "__main__":
    server_process.main()
