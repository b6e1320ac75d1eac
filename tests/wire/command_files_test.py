#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Where the command `swiglu` takes its tensors from and where it puts them, against the server: several tensors in one file,
# raw bytes, standard input and output, and the check of results.
import json
import math
import os
import pathlib
import pty
import resource
import struct
import subprocess
import tempfile
import threading

import contract
import server_process
from command_test import CommandTest, normal
from contract import BF16, DTYPES, FP16, FP32
from server_process import Server
from tensor_files import read_all_safetensors, read_npy, write_mlp, write_npy, write_safetensors

SHAPE = [6, 7]


class FilesTest(CommandTest):
    def raw(self, dtype, *names):
        """Random tensors of SHAPE by name, as raw bytes."""
        return {name: normal(dtype, SHAPE, seed) for seed, name in enumerate(names)}

    def named(self, dtype, raw, file="in.safetensors"):
        """Writes tensors of SHAPE, given by name, into one file."""
        return write_safetensors(self.folder / file, **{name: (dtype.name, SHAPE, data) for name, data in raw.items()})

    def pipe(self, *arguments, data=b"", server=None, **options):
        """Runs the command with `data` on stdin; the output is bytes, the errors are text."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        if "stdin" not in options:
            options["input"] = data
        result = subprocess.run([server_process.CLIENT, *map(str, arguments), f"--server={server or self.server.address}"],
                                timeout=server_process.DEADLINE_S, check=False, **options)
        result.stderr = result.stderr.decode() if result.stderr is not None else ""
        return result

    def assert_pipe_fails(self, result, line, code=1):
        """The command ended with `code`, without a byte on stdout and with exactly this line."""
        self.assertEqual((result.returncode, result.stdout, result.stderr), (code, b"", f"swiglu: {line}\n"))


class NamedTest(FilesTest):
    def test_one_file_with_all_inputs_gives_one_file_with_all_results(self):
        for dtype in DTYPES:
            with self.subTest(dtype.name):
                raw = self.raw(dtype, "dw", "e", "g")
                out = self.folder / "out.safetensors"
                result = self.swiglu("backward", "--in", self.named(dtype, raw), "--out", out, "--overwrite")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                found = read_all_safetensors(out)
                self.assertEqual({name: entry[:2] for name, entry in found.items()},
                                 {name: (dtype.name, SHAPE) for name in ("h", "df", "de")})
                results = {name: entry[2] for name, entry in found.items()}
                self.assertEqual(contract.backward_faults(dtype, **raw, **results), [])

    def test_tensors_of_other_names_are_named(self):
        raw = self.raw(BF16, "layer0.gate", "layer0.up")
        out = self.folder / "out.safetensors"
        result = self.swiglu("forward", "--in", self.named(BF16, raw), "--e=:layer0.gate", "--g=:layer0.up", "--out", out)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(contract.forward_faults(BF16, *raw.values(), read_all_safetensors(out)["h"][2]), [])


class RawTest(FilesTest):
    def test_raw_files_are_right(self):
        for dtype in DTYPES:
            with self.subTest(dtype.name):
                raw = self.raw(dtype, "dw", "e", "g")
                (self.folder / "all.bin").write_bytes(b"".join(raw.values()))
                flags = ("--shape=6,7", f"--dtype={dtype.name.lower()}", "--overwrite")
                result = self.swiglu("backward", "--in", self.folder / "all.bin", "--out_dir", self.folder / "out", *flags)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                results = {name: (self.folder / "out" / f"{name}.raw").read_bytes() for name in ("h", "df", "de")}
                self.assertEqual(contract.backward_faults(dtype, **raw, **results), [])
                result = self.swiglu("backward", "--in", self.folder / "all.bin", "--out", self.folder / "out.raw", *flags)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertEqual((self.folder / "out.raw").read_bytes(), b"".join(results.values()))

    def test_tensors_without_elements_are_right(self):
        (self.folder / "e.raw").write_bytes(b"")
        result = self.swiglu("forward", "--in", self.folder / "e.raw", "--shape=0,4", "--dtype=fp32", "--check",
                             "--out", self.folder / "h.npy")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(read_npy(self.folder / "h.npy"), ("FP32", [0, 4], b""))


class StreamTest(FilesTest):
    def test_each_format_goes_through_pipes(self):
        raw = self.raw(FP16, "e", "g")
        npy = write_npy(self.folder / "g.npy", FP16.name, SHAPE, raw["g"])
        npy_e = write_npy(self.folder / "e.npy", FP16.name, SHAPE, raw["e"])
        flags = ("--shape=6,7", "--dtype=fp16")
        cases = {
            "safetensors": (("--in=-",), self.named(FP16, raw).read_bytes(), lambda path: read_all_safetensors(path)["h"]),
            "npy": (("--e=-", f"--g={npy}"), npy_e.read_bytes(), read_npy),
            "raw": (("--in=-", *flags), raw["e"] + raw["g"], lambda path: (FP16.name, SHAPE, path.read_bytes())),
        }
        for name, (arguments, data, read) in cases.items():
            with self.subTest(name):
                result = self.pipe("forward", *arguments, "--out=-", data=data)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertRegex(result.stderr, r"\Aforward FP16 \[6,7\]: [\d.]+ ms, [\d.]+ GB/s\n\Z")
                (self.folder / "out").write_bytes(result.stdout)
                datatype, shape, h = read(self.folder / "out")
                self.assertEqual((datatype, shape), (FP16.name, SHAPE))
                self.assertEqual(contract.forward_faults(FP16, raw["e"], raw["g"], h), [])

    def test_all_results_of_backward_go_through_a_pipe(self):
        raw = self.raw(FP32, "dw", "e", "g")
        result = self.pipe("backward", "--in=-", "--out=-", "--json", "--check", data=self.named(FP32, raw).read_bytes())
        self.assertEqual(result.returncode, 0, result.stderr)
        said = json.loads(result.stderr)
        self.assertEqual(said["files"], {"h": "-", "df": "-", "de": "-"})
        (self.folder / "out").write_bytes(result.stdout)
        results = {name: entry[2] for name, entry in read_all_safetensors(self.folder / "out").items()}
        self.assertEqual(contract.backward_faults(FP32, **raw, **results), [])

    def test_megabytes_go_through_pipes_in_pieces(self):
        e = struct.pack("<f", 3.0) * (1 << 20)
        with subprocess.Popen([server_process.CLIENT, "forward", "--in=-", "--shape=1048576", "--dtype=fp32", "--out=-",
                               f"--server={self.server.address}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as process:
            def write():
                for _ in range(2):
                    process.stdin.write(e)
                process.stdin.close()

            writer = threading.Thread(target=write)
            writer.start()
            h = process.stdout.read()
            writer.join()
        self.assertEqual((process.returncode, len(h), set(h[k:k + 4] for k in range(0, len(h), 4))), (0, len(e), {h[:4]}))

    def test_bad_input_is_one_and_is_named(self):
        named = self.named(FP16, self.raw(FP16, "e", "g")).read_bytes()
        twice = b'{"e":{"dtype":"F16","shape":[0],"data_offsets":[0,0]},"e":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}'
        flags = ("--shape=6,7", "--dtype=fp16")
        cases = [
            ((), b"", "no bytes came"),
            ((), b"\0" * 100, "it begins neither as .npy nor as .safetensors; raw bytes need --shape and --dtype"),
            ((), named[:100], f"truncated in its header: it has 92 of {struct.unpack('<Q', named[:8])[0]} bytes"),
            ((), named[:-1], "tensor 'g' ends at byte 168 of the data, which has 167"),
            ((), named + b"x", "the last 1 bytes belong to no tensor"),
            ((), struct.pack("<Q", len(twice)) + twice, "malformed header: 'e' is there twice"),
            (flags, bytes(167), "it has 167 bytes; 2 tensors of shape [6,7] of FP16 need 168"),
            (flags, bytes(169), "more than the 168 bytes that --shape and --dtype need"),
        ]
        for arguments, data, line in cases:
            with self.subTest(line):
                result = self.pipe("forward", "--in=-", *arguments, "--out", self.folder / "h.safetensors", data=data)
                self.assert_pipe_fails(result, f"stdin: {line}")
        self.assert_holds("in.safetensors")

    def test_endless_input_is_one(self):
        with open("/dev/zero", "rb") as zero:
            for arguments, line in (((), "it begins neither as .npy nor as .safetensors; raw bytes need --shape and --dtype"),
                                    (("--shape=6,7", "--dtype=fp16"), "more than the 168 bytes that --shape and --dtype need")):
                self.assert_pipe_fails(self.pipe("forward", "--in=-", *arguments, "--out=-", stdin=zero), f"stdin: {line}")

    def test_input_beyond_the_memory_is_one(self):
        limit = 1 << 30
        options = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))}
        most = (limit - (32 << 20)) // 4 * 2  # two inputs, and twice the result, beside the program
        line = (f"stdin: {{}} bytes or more; the most is {most} bytes, which with the results and their messages fill the "
                f"{limit} bytes that this process may use; put the tensors into a file")
        result = self.pipe("forward", "--in=-", "--shape=1000000,1000000", "--dtype=fp16", "--out=-", **options)
        self.assert_pipe_fails(result, line.format(4 * 10**12))
        long = self.folder / "long"
        long.write_bytes(struct.pack("<Q", 2) + b"{}")
        os.truncate(long, limit)  # holes
        with open(long, "rb") as file:
            result = self.pipe("forward", "--in=-", "--out=-", stdin=file, **options)
        # What the process has besides may make the memory end first.
        self.assertEqual((result.returncode, result.stdout), (1, b""))
        self.assertRegex(result.stderr, rf"\Aswiglu: ({line.format(most + 1)}|stdin: no memory for more than \d+ bytes)\n\Z")

    def test_results_beyond_the_memory_are_one(self):
        limit = 1 << 30
        e = self.folder / "e.raw"
        for name, size, line in (
                ("DATA", 600 << 20, f"the call needs {1232 << 20} bytes of memory: twice the {600 << 20} of the "
                                    f"results, and {32 << 20}; this process may use {limit}; cut the tensors into several calls"),
                ("AS", 100 << 20, rf"no room for \d+ bytes more, for messages and threads of the call; this process may use "
                                  rf"{limit} bytes in all; cut the tensors into several calls, or raise ulimit -v and -d")):
            e.touch()
            os.truncate(e, size)  # holes
            kind = getattr(resource, f"RLIMIT_{name}")
            result = self.pipe("forward", "--e", e, "--g", e, f"--shape={size // 2}", "--dtype=fp16", "--out=-",
                               preexec_fn=lambda kind=kind: resource.setrlimit(kind, (limit, limit)))
            self.assertEqual((result.returncode, result.stdout), (1, b""))
            self.assertRegex(result.stderr, rf"\Aswiglu: {line}\n\Z")

    def test_closed_streams_are_one(self):
        named = self.named(FP16, self.raw(FP16, "e", "g"))
        for closed in ((0,), (0, 1), (1,)):
            with self.subTest(closed):
                def close(numbers=closed):
                    for number in numbers:
                        os.close(number)

                result = self.pipe("forward", "--in=-", f"--out={'-' if 1 in closed else self.folder / 'h.npy'}",
                                   data=named.read_bytes() if 0 not in closed else b"", preexec_fn=close)
                self.assert_pipe_fails(result, "stdout: closed, or not open for writing" if 1 in closed else
                                       "stdin: closed, or not open for reading")

    def test_reader_that_has_gone_is_one(self):
        reader, writer = os.pipe()
        os.close(reader)
        named = self.named(FP16, self.raw(FP16, "e", "g"))
        # By default a write to such a pipe is a signal, SIGPIPE; with that ignored, an error of the write.
        for restore_signals in (True, False):
            result = self.pipe("forward", "--in", named, "--out=-", stdout=writer, restore_signals=restore_signals)
            self.assertEqual((result.returncode, result.stderr), (1, "swiglu: stdout: cannot write: Broken pipe\n"))
            result = self.pipe("status", stdout=writer, restore_signals=restore_signals)
            self.assertEqual((result.returncode, result.stderr), (1, "swiglu: cannot write to stdout\n"))
        os.close(writer)

    def test_terminal_is_no_place_for_tensors(self):
        named = self.named(FP16, self.raw(FP16, "e", "g"))
        controller, terminal = pty.openpty()
        result = self.pipe("forward", "--in", named, "--out=-", stdout=terminal)
        self.assertEqual((result.returncode, result.stderr),
                         (1, "swiglu: stdout: tensors do not go to a terminal; send them to a file or a pipe\n"))
        self.assert_pipe_fails(self.pipe("forward", "--in=-", "--out=-", stdin=terminal),
                               "stdin: tensors do not come from a terminal; send them from a file or through a pipe")
        os.close(terminal)
        os.close(controller)

    def test_failed_call_gives_no_byte(self):
        named = self.named(FP16, self.raw(FP16, "e", "g"))
        with Server("--max_request_bytes=100") as server:
            result = self.pipe("forward", "--in", named, "--out=-", server=server.address)
        self.assertEqual((result.returncode, result.stdout), (4, b""))
        self.assertRegex(result.stderr, r"\Aswiglu: RESOURCE_EXHAUSTED: [^\n]+\n\Z")


class CheckTest(FilesTest):
    def test_results_of_the_server_pass(self):
        for dtype in DTYPES:
            with self.subTest(dtype.name):
                raw = self.raw(dtype, "dw", "e", "g")
                result = self.swiglu("backward", "--in", self.named(dtype, raw), "--out", self.folder / "out.safetensors",
                                     "--overwrite", "--check")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertRegex(result.stdout,
                                 r"GB/s, largest error: h [\d.]+ ulp, df [\d.]+ ulp, de [\d.]+ ulp\n\Z")

    def test_special_values_pass(self):
        values = (0.0, -0.0, 1.0, -1.0, 6e-8, 65504.0, -65504.0, 1e-40, 3e38, -88.72284, 88.72284, math.inf, -math.inf, math.nan)
        for dtype in DTYPES:
            with self.subTest(dtype.name):
                columns = zip(*((dw, e, g) for dw in values for e in values for g in values))
                raw = self.folder / "all.raw"
                raw.write_bytes(b"".join(dtype.raw(column) for column in columns))
                result = self.swiglu("backward", "--in", raw, f"--shape={len(values) ** 3}", f"--dtype={dtype.name.lower()}",
                                     "--out", self.folder / "out.raw", "--overwrite", "--check", "--json")
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertEqual(list(json.loads(result.stdout)["largest_error_ulp"]), ["h", "df", "de"])


class MlpTest(FilesTest):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.SERVER_FLAGS = (f"--mlp=tiny={write_mlp(pathlib.Path(folder.name) / 'model.safetensors')}",)
        super().setUpClass()

    def test_inputs_come_by_name_from_a_pipe(self):
        shape = [3, 64]
        both = write_safetensors(self.folder / "in.safetensors", x=("BF16", shape, normal(BF16, shape, 1)),
                                 dy=("BF16", shape, normal(BF16, shape, 2)))
        for op, name in (("forward", "y"), ("backward", "dx")):
            result = self.pipe("mlp", "--model=tiny", "--layer=1", "--in=-", f"--op={op}", "--out=-", data=both.read_bytes())
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertRegex(result.stderr, rf"\Amlp tiny 1 {op} BF16 \[3,64\]: ")
            (self.folder / "out").write_bytes(result.stdout)
            self.assertEqual(read_all_safetensors(self.folder / "out"), {name: ("BF16", shape, bytes(2 * 3 * 64))})


if __name__ == "__main__":
    server_process.main()
