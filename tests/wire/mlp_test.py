#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# MLPs with weights from files, by the stock Python client: results against a reference in float32, equal bits in any company,
# gradients of the weights, system regions, and what the server does with bad weights. All weights are random and small.
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import struct
import tempfile
import unittest

import ml_dtypes
import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

import server_process
from server_process import Server
from triton_fixture import CHANNEL, TritonTest

HIDDEN, INTERMEDIATE, LAYERS = 64, 176, 3
BF16 = ml_dtypes.bfloat16
SHAPES = {"gate": (INTERMEDIATE, HIDDEN), "up": (INTERMEDIATE, HIDDEN), "down": (HIDDEN, INTERMEDIATE)}


def random_weights(seed):
    """The matrices of every layer, by layer and name."""
    source = numpy.random.default_rng(seed)
    return [{name: source.normal(0, 0.1, shape).astype(BF16) for name, shape in SHAPES.items()} for _ in range(LAYERS)]


def write_model(path, layers):
    """Writes a .safetensors file with the tensors' names as Hugging Face has them."""
    header, data = {}, b""
    for number, layer in enumerate(layers):
        for name, matrix in layer.items():
            header[f"model.layers.{number}.mlp.{name}_proj.weight"] = {
                "dtype": "BF16", "shape": list(matrix.shape), "data_offsets": [len(data), len(data) + matrix.nbytes]}
            data += matrix.tobytes()
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def rounded(array):
    return array.astype(BF16).astype(numpy.float32)


def forward(x, layer):
    """y, in float32 but for the roundings of the contract."""
    gate, up, down = (layer[name].astype(numpy.float32) for name in SHAPES)
    e, g = rounded(x @ gate.T), rounded(x @ up.T)
    return rounded(rounded(rounded(e / (1 + numpy.exp(-e))) * g) @ down.T)


def backward(x, dy, layer):
    """dx, likewise."""
    gate, up, down = (layer[name].astype(numpy.float32) for name in SHAPES)
    e, g, dw = rounded(x @ gate.T), rounded(x @ up.T), rounded(dy @ down)
    sigmoid = 1 / (1 + numpy.exp(-e))
    df = rounded(dw * rounded(e * sigmoid))
    de = rounded(rounded(dw * g) * sigmoid * (1 + e * (1 - sigmoid)))
    return rounded(rounded(df @ up) + rounded(de @ gate))


def weight_gradients(x, dy, layer):
    """The gradients of gate, up and down, each with a bound of its error. h, df and de are rounded as the contract says, and the
    sums over tokens are exact to float64."""
    gate, up, down = (layer[name].astype(numpy.float32) for name in SHAPES)
    e, g, dw = rounded(x @ gate.T), rounded(x @ up.T), rounded(dy @ down)
    sigmoid = 1 / (1 + numpy.exp(-e))
    silu = rounded(e * sigmoid)
    h, df = rounded(silu * g), rounded(dw * silu)
    de = rounded(rounded(dw * g) * sigmoid * (1 + e * (1 - sigmoid)))
    for rows, columns in ((de, x), (df, x), (dy, h)):
        rows, columns = rows.astype(numpy.float64), columns.astype(numpy.float64)
        yield rows.T @ columns, numpy.abs(rows).T @ numpy.abs(columns)


GRADIENTS = {f"d_{name}_proj": shape for name, shape in SHAPES.items()}


def bits(array):
    return array.view(numpy.uint16)


class MlpTest(TritonTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.layers = random_weights(1)
        write_model(pathlib.Path(cls.folder, "model.safetensors"), cls.layers)
        cls.SERVER_FLAGS = ("--device=cpu", f"--mlp=tiny={cls.folder}", "--mlp_max_batch_tokens=32",
                            "--system_shared_memory=on", f"--system_shared_memory_prefix=swiglu_mlp_{os.getpid()}")
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def setUp(self):
        super().setUp()
        self.random = numpy.random.default_rng(7)

    def rows(self, *shape):
        return self.random.normal(0, 1, (*shape, HIDDEN)).astype(BF16)

    def infer(self, model, **tensors):
        """The only output, and the response's parameters."""
        inputs = [triton.InferInput(name, list(array.shape), "BF16").set_data_from_numpy(array)
                  for name, array in tensors.items()]
        result = self.client.infer(model, inputs)
        response = result.get_response()
        return result.as_numpy(response.outputs[0].name), response.parameters

    def assert_near(self, found, expected):
        scale = numpy.abs(expected).max()
        numpy.testing.assert_allclose(found.astype(numpy.float32) / scale, expected / scale, atol=0.02)

    def test_computes_each_layer_forward_and_backward(self):
        x, dy = self.rows(2, 5), self.rows(2, 5)
        for number, layer in enumerate(self.layers):
            y, _ = self.infer(f"mlp_tiny_{number}_forward", x=x)
            self.assertEqual((y.shape, y.dtype), (x.shape, BF16))
            self.assert_near(y, forward(x.astype(numpy.float32), layer))
            dx, _ = self.infer(f"mlp_tiny_{number}_backward", x=x, dy=dy)
            self.assert_near(dx, backward(x.astype(numpy.float32), dy.astype(numpy.float32), layer))

    def test_says_which_weights_it_used(self):
        for number, layer in enumerate(self.layers):
            sha256 = hashlib.sha256(b"".join(layer[name].tobytes() for name in SHAPES)).hexdigest()
            _, parameters = self.infer(f"mlp_tiny_{number}_forward", x=self.rows(1))
            self.assertEqual(parameters["weights_sha256"].string_param, sha256)

    def test_bits_do_not_depend_on_company(self):
        """Alone, in a request that is cut into chunks, and beside other callers."""
        x = self.rows(150)
        batches = {"op": "mlp_forward", "dtype": "bf16", "path": "cpu"}
        before = self.server.metric("swiglu_batches_total", **batches)
        whole, _ = self.infer("mlp_tiny_1_forward", x=x)
        # Four chunks of 32 tokens and one of 22.
        self.assertEqual(self.server.metric("swiglu_batches_total", **batches), before + 5)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(lambda first: self.infer("mlp_tiny_1_forward", x=x[first:first + 5])[0], range(0, 150, 5)))
        numpy.testing.assert_array_equal(bits(numpy.concatenate(parts)), bits(whole))
        alone, _ = self.infer("mlp_tiny_1_forward", x=x[77])
        numpy.testing.assert_array_equal(bits(alone), bits(whole[77]))

    def gradients(self, layer, x, dy, names=tuple(GRADIENTS)):
        """The named outputs of backward, by name."""
        inputs = [triton.InferInput(name, list(array.shape), "BF16").set_data_from_numpy(array)
                  for name, array in (("x", x), ("dy", dy))]
        result = self.client.infer(f"mlp_tiny_{layer}_backward", inputs, outputs=[triton.InferRequestedOutput(name) for name in names])
        self.assertEqual([output.name for output in result.get_response().outputs], list(names))
        return {name: result.as_numpy(name) for name in names}

    def test_computes_gradients_of_the_weights(self):
        """More tokens than a batch has, so the server adds up the sums of several passes."""
        x, dy = self.rows(75), self.rows(75)
        found = self.gradients(1, x, dy)
        expected = weight_gradients(x.astype(numpy.float32), dy.astype(numpy.float32), self.layers[1])
        for (name, shape), (sums, sizes) in zip(GRADIENTS.items(), expected):
            self.assertEqual((found[name].shape, found[name].dtype), (shape, numpy.float32))
            errors = numpy.abs(found[name] - sums) / sizes
            # Numpy adds up the products before h, df and de in another order, so a few of these numbers may be rounded to the next
            # BF16. All gradients that do not have such a term are within the bound of the contract.
            self.assertGreater((errors < 75 * 2**-24).mean(), 0.99, name)
            self.assertLess(errors.max(), 2**-9, name)

    def test_gradients_sum_the_tokens_one_by_one(self):
        """One token after the other gives terms that are products of two numbers of BF16, exact in float32. Added up in their order
        in float32, they give the server's bits: a float32 sum of an exact product is what one fused multiply-add gives."""
        x, dy = self.rows(40), self.rows(40)
        sums = {name: numpy.zeros(shape, numpy.float32) for name, shape in GRADIENTS.items()}
        for token in range(40):
            for name, term in self.gradients(2, x[token:token + 1], dy[token:token + 1]).items():
                sums[name] += term
        for name, whole in self.gradients(2, x, dy).items():
            numpy.testing.assert_array_equal(whole, sums[name], name)

    def test_gradients_come_only_if_they_are_named(self):
        x, dy = self.rows(3), self.rows(3)
        dx, _ = self.infer("mlp_tiny_0_backward", x=x, dy=dy)
        all_of_it = self.gradients(0, x, dy, ("d_down_proj", "dx", "d_gate_proj"))
        numpy.testing.assert_array_equal(bits(all_of_it["dx"]), bits(dx))
        alone = self.gradients(0, x, dy, ("d_down_proj",))
        numpy.testing.assert_array_equal(alone["d_down_proj"], all_of_it["d_down_proj"])
        with self.assertRaises(InferenceServerException) as raised:
            self.client.infer("mlp_tiny_0_forward", [triton.InferInput("x", [3, HIDDEN], "BF16").set_data_from_numpy(x)],
                              outputs=[triton.InferRequestedOutput("d_up_proj")])
        self.assertEqual(raised.exception.message(), "unknown output 'd_up_proj': 'mlp_tiny_0_forward' gives y")

    def test_gradients_of_no_tokens_are_zero(self):
        for name, gradient in self.gradients(0, self.rows(0), self.rows(0)).items():
            numpy.testing.assert_array_equal(gradient, numpy.zeros(GRADIENTS[name], numpy.float32))

    def test_metadata_list_the_gradients(self):
        outputs = self.client.get_model_metadata("mlp_tiny_0_backward").outputs
        self.assertEqual([(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in outputs],
                         [("dx", "BF16", [-1, HIDDEN])] + [(name, "FP32", list(shape)) for name, shape in GRADIENTS.items()])

    def test_writes_gradients_into_system_regions(self):
        x, dy = self.rows(40), self.rows(40)
        expected = self.gradients(0, x, dy)
        size = INTERMEDIATE * HIDDEN * 4
        key = f"swiglu_mlp_{os.getpid()}_gradients"
        region = shared_memory.create_shared_memory_region("g", key, 2 * size)
        self.addCleanup(shared_memory.destroy_shared_memory_region, region)
        self.client.register_system_shared_memory("g", key, 2 * size)
        self.addCleanup(self.client.unregister_system_shared_memory, "g")
        inputs = [triton.InferInput(name, list(x.shape), "BF16").set_data_from_numpy(array) for name, array in (("x", x), ("dy", dy))]
        outputs = [triton.InferRequestedOutput(name) for name in ("d_up_proj", "d_down_proj", "d_gate_proj")]
        for number, output in enumerate(outputs[:2]):
            output.set_shared_memory("g", size, offset=number * size)
        sent = {"direction": "out", "memory": "system"}
        before = self.server.metric("swiglu_region_bytes_total", **sent)
        result = self.client.infer("mlp_tiny_0_backward", inputs, outputs=outputs)
        self.assertEqual(self.server.metric("swiglu_region_bytes_total", **sent), before + 2 * size)
        for number, name in enumerate(("d_up_proj", "d_down_proj")):
            found = shared_memory.get_contents_as_numpy(region, numpy.float32, list(GRADIENTS[name]), number * size)
            numpy.testing.assert_array_equal(found, expected[name])
        numpy.testing.assert_array_equal(result.as_numpy("d_gate_proj"), expected["d_gate_proj"])
        outputs[1].set_shared_memory("g", size, offset=size - 4)
        with self.assertRaises(InferenceServerException) as raised:
            self.client.infer("mlp_tiny_0_backward", inputs, outputs=outputs)
        self.assertEqual(raised.exception.message(), "output 'd_up_proj' overlaps output 'd_down_proj'")

    def test_computes_in_system_regions(self):
        x, dy = self.rows(40), self.rows(40)
        expected, _ = self.infer("mlp_tiny_0_backward", x=x, dy=dy)
        key = f"swiglu_mlp_{os.getpid()}_region"
        region = shared_memory.create_shared_memory_region("r", key, 3 * x.nbytes)
        self.addCleanup(shared_memory.destroy_shared_memory_region, region)
        shared_memory.set_shared_memory_region(region, [bits(x), bits(dy)])
        self.client.register_system_shared_memory("r", key, 3 * x.nbytes)
        self.addCleanup(self.client.unregister_system_shared_memory, "r")
        tensors = [triton.InferInput(name, list(x.shape), "BF16") for name in ("x", "dy")]
        output = triton.InferRequestedOutput("dx")
        for offset, tensor in enumerate((*tensors, output)):
            tensor.set_shared_memory("r", x.nbytes, offset=offset * x.nbytes)
        self.client.infer("mlp_tiny_0_backward", tensors, outputs=[output])
        found = shared_memory.get_contents_as_numpy(region, numpy.uint16, list(x.shape), 2 * x.nbytes)
        numpy.testing.assert_array_equal(found, bits(expected))
        # In place: dx over x.
        output = triton.InferRequestedOutput("dx")
        output.set_shared_memory("r", x.nbytes)
        self.client.infer("mlp_tiny_0_backward", tensors, outputs=[output])
        found = shared_memory.get_contents_as_numpy(region, numpy.uint16, list(x.shape))
        numpy.testing.assert_array_equal(found, bits(expected))

    def test_refuses_rows_of_another_length(self):
        for shape, found in (((3, HIDDEN - 1), HIDDEN - 1), ((3, 2 * HIDDEN), 2 * HIDDEN)):
            with self.assertRaises(InferenceServerException) as raised:
                self.infer("mlp_tiny_0_forward", x=numpy.zeros(shape, BF16))
            self.assertEqual(raised.exception.message(),
                             f"last dimension of 'x' is {found}; 'mlp_tiny_0_forward' takes {HIDDEN}")

    def test_counts_all_layers_as_one_model(self):
        before = self.server.metric("swiglu_requests_total", model="mlp_tiny", code="OK")
        self.infer("mlp_tiny_0_forward", x=self.rows(1))
        self.infer("mlp_tiny_2_backward", x=self.rows(1), dy=self.rows(1))
        self.assertEqual(self.server.metric("swiglu_requests_total", model="mlp_tiny", code="OK"), before + 2)
        self.assertEqual(self.client.get_inference_statistics("mlp_tiny_2_backward").model_stats[0].inference_count > 0, True)


class WeightsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = str(pathlib.Path(self.folder, "m.safetensors"))

    def run_server(self, *flags):
        return server_process.run(server_process.SERVER, "--device=cpu", "--grpc_address=127.0.0.1:0", "--metrics_address=", *flags)

    def test_ends_if_the_weights_are_bad(self):
        pathlib.Path(self.path).write_bytes(b"none")
        result = self.run_server(f"--mlp=m={self.path}")
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{self.path}: not a .safetensors file: it has 4 bytes", result.stderr)

    def test_ends_if_a_layer_is_missing(self):
        write_model(self.path, random_weights(2))
        result = self.run_server(f"--mlp=m={self.path}", "--mlp_layers=m=1:4")
        self.assertEqual(result.returncode, 1)
        self.assertIn("layer 3 has no MLP; those that have one are 0 to 2", result.stderr)

    def test_serves_only_the_layers_that_were_asked_for(self):
        write_model(self.path, random_weights(2))
        server = Server("--device=cpu", f"--mlp=m={self.path}", "--mlp_layers=m=1:3")
        self.addCleanup(server.kill)
        server.wait_for("all weights are loaded")
        client = triton.InferenceServerClient(server.address, channel_args=CHANNEL)
        self.addCleanup(client.close)
        names = [model.name for model in client.get_model_repository_index().models if model.name.startswith("mlp")]
        self.assertEqual(names, ["mlp_m_1_forward", "mlp_m_1_backward", "mlp_m_2_forward", "mlp_m_2_backward"])
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    server_process.main()
