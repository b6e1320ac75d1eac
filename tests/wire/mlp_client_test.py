#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# MLPs by this project's own clients: the command `swiglu mlp` beside the stock Python client, and loads of swiglu-bench with both
# of its clients, in messages and in system regions.
import json
import pathlib
import shutil
import tempfile

import ml_dtypes
import numpy

import server_process
import tensor_files
import tritonclient.grpc as triton
from mlp_test import HIDDEN, LAYERS, random_weights, write_model
from triton_fixture import TritonTest


class MlpClientTest(TritonTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        write_model(cls.folder / "model.safetensors", random_weights(1))
        cls.SERVER_FLAGS = ("--device=cpu", f"--mlp=tiny={cls.folder}", "--system_shared_memory=on")
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def write(self, name, shape):
        """Writes random numbers in BF16 to a file; returns its path and the numbers."""
        values = numpy.random.default_rng(len(name)).normal(0, 1, shape).astype(ml_dtypes.bfloat16)
        path = tensor_files.write_safetensors(self.folder / f"{name}.safetensors", x=("BF16", list(shape), values.tobytes()))
        return str(path), values

    def mlp(self, *flags, layer=1):
        return server_process.run(server_process.CLIENT, "mlp", f"--server={self.server.address}", "--model=tiny",
                                  f"--layer={layer}", "--overwrite", *flags)

    def expected(self, model, **tensors):
        """The bytes of the only output and the weights, by the stock client."""
        inputs = [triton.InferInput(name, list(array.shape), "BF16").set_data_from_numpy(array)
                  for name, array in tensors.items()]
        response = self.client.infer(model, inputs).get_response()
        return response.raw_output_contents[0], response.parameters["weights_sha256"].string_param

    def assert_writes(self, output, model, tensors, *flags):
        """The command writes the bits that the stock client gets, and names the same weights."""
        out = self.folder / "out.safetensors"
        result = self.mlp(*flags, f"--out={out}", "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        raw, weights = self.expected(model, **tensors)
        self.assertEqual(tensor_files.read_safetensors(out), (output, "BF16", list(tensors["x"].shape), raw))
        self.assertEqual(json.loads(result.stdout)["weights_sha256"], weights)

    def test_command_computes_y(self):
        path, x = self.write("x", (3, 7, HIDDEN))
        self.assert_writes("y", "mlp_tiny_1_forward", {"x": x}, f"--x={path}")

    def test_command_computes_dx(self):
        (path, x), (dy_path, dy) = self.write("x", (9, HIDDEN)), self.write("dy", (9, HIDDEN))
        self.assert_writes("dx", "mlp_tiny_1_backward", {"x": x, "dy": dy}, f"--x={path}", f"--dy={dy_path}")

    def test_refusals_of_the_server_are_four(self):
        x, narrow = self.write("x", (2, HIDDEN))[0], self.write("narrow", (2, HIDDEN - 1))[0]
        fp16 = tensor_files.write_npy(self.folder / "fp16.npy", "FP16", [HIDDEN], bytes(2 * HIDDEN))
        for path, layer, sentence in (
                (x, LAYERS, f"NOT_FOUND: unknown model 'mlp_tiny_{LAYERS}_forward': this server has .*"),
                (narrow, 0, f"INVALID_ARGUMENT: last dimension of 'x' is {HIDDEN - 1}; 'mlp_tiny_0_forward' takes {HIDDEN}"),
                (fp16, 0, "INVALID_ARGUMENT: input 'x' is FP16; 'mlp_tiny_0_forward' takes BF16")):
            out = self.folder / f"none{pathlib.Path(path).suffix}"
            result = self.mlp(f"--x={path}", f"--out={out}", layer=layer)
            self.assertEqual((result.returncode, result.stdout), (4, ""))
            self.assertRegex(result.stderr, rf"\Aswiglu: {sentence} \(from {self.server.address}\)\n\Z")
            self.assertFalse(out.exists())

    def load(self, *flags):
        return server_process.run(server_process.BENCH, f"--server={self.server.address}", "--mlp=tiny:0", "--warm_up=0", *flags)

    def test_loads_get_the_same_bits_again_and_again(self):
        for client in ("raw", "library"):
            for memory in ("none", "system"):
                for op in ("forward", "backward"):
                    with self.subTest(client=client, memory=memory, op=op):
                        result = self.load(f"--client={client}", f"--shared_memory={memory}", f"--op={op}", f"--layers={LAYERS}",
                                           "--tokens=1*2,40", "--requests=60", "--in_flight=4", "--check", "--json")
                        self.assertEqual((result.returncode, result.stderr), (0, ""))
                        parsed = json.loads(result.stdout)
                        self.assertEqual((parsed["requests"], parsed["errors"]), (60, {}))
                        self.assertIn(parsed["checked"], range(1, 5) if memory == "system" else range(60 - 2 * LAYERS, 60))
                        configuration = parsed["configuration"]
                        self.assertEqual((configuration["model"], configuration["hidden_size"]), (f"mlp_tiny_0_{op}", HIDDEN))
                        tokens = sum(size["tokens"] * size["requests"] for size in parsed["sizes"])
                        self.assertAlmostEqual(parsed["tokens_per_s"], tokens / parsed["elapsed_seconds"])

    def test_a_caller_may_spin(self):
        for client in ("raw", "library"):
            result = self.load(f"--client={client}", "--in_flight=1", "--spin", "--requests=20", "--json")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertEqual(json.loads(result.stdout)["requests"], 20)

    def test_a_load_on_a_layer_that_is_not_there_is_four(self):
        result = self.load(f"--layers={LAYERS + 1}")
        self.assertEqual((result.returncode, result.stdout), (4, ""))
        self.assertRegex(result.stderr, rf"\Aswiglu-bench: NOT_FOUND: unknown model 'mlp_tiny_{LAYERS}_forward': .*\n\Z")

    def test_a_request_that_fits_into_no_message_is_two(self):
        result = self.load("--tokens=20000000")
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertRegex(result.stderr, r"\Aswiglu-bench: a request of \S+ does not fit into a message: it takes "
                                        r"--client=library; see swiglu-bench --help\n\Z")


if __name__ == "__main__":
    server_process.main()
