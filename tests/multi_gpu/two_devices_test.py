#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# One server on two devices: every golden table bit for bit on each device and on both at once, and a mixed load that spreads
# over them. On two CUDA devices, where there are two, and on two that only pretend and compute on the CPU. MLPs whose layers
# lie on different devices, or on both: on CUDA devices alone.
import concurrent.futures
import json
import pathlib
import random
import struct
import subprocess
import tempfile
import unittest

import server_process
from device_fault_test import FaultServer
from golden_tables import differing, read_tables
from server_process import Server
from tensor_files import num_elements, read_safetensors, write_safetensors

BOTH = (0, 1)
# A load of small and large requests, and what runs beside it.
MIXED = ("--request_bytes=64KiB*9,4MiB*1", "--model=swiglu_forward_fp16", "--in_flight=64")
BESIDE = ("--request_bytes=64KiB*9,4MiB*1", "--model=swiglu_backward_bf16", "--in_flight=16")


class TableFiles:
    """The golden tables as files for the command, in a folder."""

    def __init__(self, folder):
        self.tables = read_tables()
        self._inputs = {}
        for index, table in enumerate(self.tables):
            tensors = {name: (table.datatype, [table.num_elements], raw) for name, raw in table.inputs.items()}
            self._inputs[table.title] = write_safetensors(pathlib.Path(folder) / f"{index}.safetensors", **tensors)

    def ask(self, server, table):
        """Has the server compute a table; returns its outputs as raw bytes by name."""
        with tempfile.TemporaryDirectory() as out:
            command = [table.op, *(f"--{name}={self._inputs[table.title]}:{name}" for name in table.inputs),
                       f"--server={server.address}",
                       f"--out={out}/h.safetensors" if table.op == "forward" else f"--out_dir={out}"]
            result = server_process.run(server_process.CLIENT, *command)
            if result.returncode != 0:
                raise AssertionError(f"{table.title}: {result.stderr}")
            return {path.stem: read_safetensors(path)[3] for path in pathlib.Path(out).iterdir()}


def bytes_of(server, devices):
    """The bytes that each device has read and written."""
    return [server.metric("swiglu_device_bytes_total", device=str(device)) for device in devices]


def put_load(server, *flags):
    """Begins a load on a server."""
    command = [server_process.BENCH, f"--server={server.address}", "--json", "--connections=8", "--warm_up=0", *flags]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


class TwoDevices:
    """The tests, for a class that has `start` and says which answers are right and which shares are even."""

    def start(self, devices):
        """Returns a server on those devices; skips the test where they are not."""
        raise NotImplementedError

    def expected(self, files, table):
        """Returns the outputs that the table must have, by name."""
        raise NotImplementedError

    least_share = None
    duration = "2s"

    def assert_golden(self, files, server, table):
        """The server's outputs have the bits that are expected."""
        found = files.ask(server, table)
        for name, expected in self.expected(files, table).items():
            num_differing = differing(table.datatype, found[name], expected)
            self.assertEqual(num_differing, 0, f"{table.title}: {num_differing} elements of {name} differ")

    def test_golden_tables_on_each_device(self):
        with tempfile.TemporaryDirectory() as folder:
            files = TableFiles(folder)
            for device in BOTH:
                server = self.start([device])
                for table in files.tables:
                    with self.subTest(device=device, table=table.title):
                        self.assert_golden(files, server, table)
                done, = bytes_of(server, [device])
                print(f"device {device}: {len(files.tables)} golden tables, {done:.0f} bytes on it", flush=True)
                self.assertGreater(done, 0)
                self.assertEqual(server.stop(), 0, server.log)

    def test_golden_tables_on_both_devices_at_once(self):
        with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(len(BOTH) * 4) as callers:
            files = TableFiles(folder)
            server = self.start(BOTH)
            for _ in callers.map(lambda table: self.assert_golden(files, server, table), files.tables * 3):
                pass
            done = bytes_of(server, BOTH)
            print(f"both at once: {3 * len(files.tables)} golden tables, {done} bytes", flush=True)
            for each in done:
                self.assertGreater(each, 0)
            self.assertEqual(server.stop(), 0, server.log)

    def test_mixed_load_takes_both_devices_alike(self):
        server = self.start(BOTH)
        loads = [put_load(server, f"--duration={self.duration}", *flags) for flags in (MIXED, BESIDE)]
        results = [json.loads(load.communicate(timeout=server_process.DEADLINE_S)[0]) for load in loads]
        done = bytes_of(server, BOTH)
        shares = [each / sum(done) for each in done]
        print(f"{sum(result['requests'] for result in results)} requests, {sum(done) / 1e9:.2f} GB, shares "
              + ", ".join(f"{share:.3f}" for share in shares), flush=True)
        for result in results:
            self.assertEqual(result["errors"], {})
        self.assertGreaterEqual(min(shares), self.least_share)
        self.assertEqual(server.stop(), 0, server.log)


class SimulatedDevicesTest(TwoDevices, unittest.TestCase):
    # Two devices that are one CPU: whatever else the machine does slows one of them down for a while.
    least_share = 0.25
    duration = "1s"

    @classmethod
    def setUpClass(cls):
        cls._cpu = Server()
        cls._answers = {}

    @classmethod
    def tearDownClass(cls):
        cls._cpu.kill()

    def start(self, devices):
        server = FaultServer(f"--devices={','.join(map(str, devices))}")
        self.addCleanup(server.kill)
        server.command(f"hold {1 << 62}")
        server.wait_for("obeyed: hold")
        return server

    # The CPU's own answers: the golden ones are a GPU's.
    def expected(self, files, table):
        if table.title not in self._answers:
            self._answers[table.title] = files.ask(self._cpu, table)
        return self._answers[table.title]


class CudaDevicesTest(TwoDevices, unittest.TestCase):
    # Within a tenth of one half.
    least_share = 0.45

    def start(self, devices):
        server = Server("--device=cuda", f"--devices={','.join(map(str, devices))}")
        self.addCleanup(server.kill)
        line = server.wait_for(r"serving gRPC on|CUDA was asked for: .+|CUDA device \d+ does not exist; .+")
        if "serving" not in line.group():
            server_process.skip(self, line.group())
        return server

    def expected(self, files, table):
        return table.outputs


class CudaMlpsTest(unittest.TestCase):
    """Both layers of the MLP have the same weights, so they give the same bits wherever they are."""
    hidden = 256
    intermediate = 512
    tokens = 33

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        shapes = {"gate": [self.intermediate, self.hidden], "up": [self.intermediate, self.hidden],
                  "down": [self.hidden, self.intermediate]}
        matrices = {name: ("BF16", shape, self.numbers(shape, name)) for name, shape in shapes.items()}
        self.layer_bytes = sum(len(raw) for _, _, raw in matrices.values())
        self.weights = write_safetensors(
            self.folder / "weights.safetensors",
            **{f"layers.{layer}.mlp.{name}_proj.weight": matrix for layer in BOTH for name, matrix in matrices.items()})
        shape = [self.tokens, self.hidden]
        self.inputs = {name: write_safetensors(self.folder / f"{name}.safetensors", t=("BF16", shape, self.numbers(shape, name)))
                       for name in ("x", "dy")}

    @staticmethod
    def numbers(shape, seed):
        """BF16 numbers from 2^-8 to 2^-5 in size, of both signs."""
        random_bytes = random.Random(seed).randbytes(2 * num_elements(shape))
        return b"".join(struct.pack("<H", low | (0x3B80 + (high & 0x81) * 0x100) & 0xBFFF)
                        for low, high in zip(random_bytes[::2], random_bytes[1::2]))

    def start(self, *flags):
        server = Server("--device=cuda", "--devices=0,1", f"--mlp=m={self.weights}", *flags)
        self.addCleanup(server.kill)
        line = server.wait_for(r"all weights are loaded|CUDA was asked for: .+|CUDA device \d+ does not exist; .+")
        if "loaded" not in line.group():
            server_process.skip(self, line.group())
        return server

    def ask(self, server, layer, *tensors):
        """Has the server compute a layer; returns the raw bytes of its output."""
        out = self.folder / "out.safetensors"
        command = ["mlp", "--model=m", f"--layer={layer}", *(f"--{name}={self.inputs[name]}" for name in tensors),
                   f"--out={out}", "--overwrite", f"--server={server.address}"]
        result = server_process.run(server_process.CLIENT, *command)
        self.assertEqual(result.returncode, 0, result.stderr)
        return read_safetensors(out)[3]

    def weight_bytes(self, server):
        """The bytes of weights that each device has."""
        return [server.metric("swiglu_mlp_weight_bytes", model="mlp_m", device=str(device)) for device in BOTH]

    def test_each_layer_computes_where_it_lies(self):
        server = self.start()
        self.assertEqual(self.weight_bytes(server), [self.layer_bytes] * 2)
        for tensors in (("x",), ("x", "dy")):
            first, second = (self.ask(server, layer, *tensors) for layer in BOTH)
            self.assertEqual(first, second)
            self.assertNotEqual(first, bytes(len(first)))
        for each in bytes_of(server, BOTH):
            self.assertGreater(each, 0)

    def test_replicas_share_the_work_and_give_the_same_bits(self):
        server = self.start("--mlp_replicas=2")
        self.assertEqual(self.weight_bytes(server), [2 * self.layer_bytes] * 2)
        answers = {self.ask(server, 0, "x", "dy") for _ in range(6)}
        self.assertEqual(len(answers), 1)
        for each in bytes_of(server, BOTH):
            self.assertGreater(each, 0)

    def test_tensors_in_the_memory_of_the_other_device(self):
        server = self.start("--cuda_shared_memory=on")
        for layer in BOTH:
            result = server_process.run(
                server_process.BENCH, f"--server={server.address}", f"--mlp=m:{layer}", f"--tokens={self.tokens}",
                "--shared_memory=cuda", "--check", "--requests=200", "--warm_up=0")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    server_process.main()
