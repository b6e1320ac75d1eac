#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# MLPs by the Python client: the bits of the command `swiglu mlp`'s library in every form, gradients, and errors.
import asyncio
import hashlib
import pathlib
import shutil
import tempfile

import numpy

import swiglu
from client_fixture import BF16, ClientTest, random_arrays
import server_process
import tensor_files
from swiglu import Code

HIDDEN, INTERMEDIATE = 64, 176
SHAPES = {"gate": (INTERMEDIATE, HIDDEN), "up": (INTERMEDIATE, HIDDEN), "down": (HIDDEN, INTERMEDIATE)}


def rounded(array):
    return array.astype(BF16).astype(numpy.float32)


class MlpTest(ClientTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        source = numpy.random.default_rng(7)
        cls.weights = {name: source.normal(0, 0.1, shape).astype(BF16) for name, shape in SHAPES.items()}
        tensor_files.write_safetensors(cls.folder / "model.safetensors", **{
            f"model.layers.0.mlp.{name}_proj.weight": ("BF16", matrix.shape, matrix.tobytes()) for name, matrix in cls.weights.items()})
        cls.SERVER_FLAGS = (f"--mlp=tiny={cls.folder}", "--system_shared_memory=on")
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def setUp(self):
        super().setUp()
        self.layer = self.client.mlp("tiny", 0)
        self.x, self.dy = random_arrays(2, (3, 5, HIDDEN), BF16)

    def test_names(self):
        self.assertEqual((self.layer.name, self.layer.layer), ("tiny", 0))
        self.assertEqual((self.layer.forward_model, self.layer.backward_model), ("mlp_tiny_0_forward", "mlp_tiny_0_backward"))
        self.assertTrue(self.client.model_ready(self.layer.forward_model))

    def test_forward_is_right_in_every_form(self):
        gate, up, down = (self.weights[name].astype(numpy.float32) for name in SHAPES)
        x = self.x.astype(numpy.float32)
        e, g = rounded(x @ gate.T), rounded(x @ up.T)
        expected = rounded(rounded(e / (1 + numpy.exp(-e))) * g) @ down.T
        statistics = swiglu.CallStatistics()
        y = self.layer.forward(self.x, statistics=statistics)
        numpy.testing.assert_allclose(y.astype(numpy.float32), expected, rtol=2e-2, atol=2e-2)
        self.assertEqual(statistics.weights_sha256, hashlib.sha256(b"".join(each.tobytes() for each in self.weights.values())).hexdigest())
        out, other = numpy.zeros_like(y), numpy.zeros_like(y)
        self.assertIs(self.layer.forward(self.x, out=out), out)
        self.assert_same(out, y)
        statistics = swiglu.CallStatistics()
        self.assertIs(self.layer.forward_async(self.x, out=other, statistics=statistics).result(), other)
        self.assert_same(other, y)
        self.assertEqual(len(statistics.weights_sha256), 64)

        async def run():
            return await self.layer.forward_async(self.x)

        self.assert_same(asyncio.run(run()), y)

    def test_arrays_in_a_region_are_not_sent(self):
        x = numpy.tile(self.x, (20, 1, 1))
        expected = self.layer.forward(x)
        region = self.client.system_region(2 * x.nbytes)
        place, y = (region.array(x.shape, BF16, i * x.nbytes) for i in range(2))
        place[:] = x
        for call in (self.layer.forward, lambda *arguments, **options: self.layer.forward_async(*arguments, **options).result()):
            statistics = swiglu.CallStatistics()
            y[:] = 0
            self.assertIs(call(place, out=y, statistics=statistics), y)
            self.assert_same(y, expected)
            self.assertIn(statistics.bytes_sent + statistics.bytes_received, range(1, 1000))

    def test_gradients_are_those_of_differences(self):
        dx, d_gate, d_up, d_down = result = self.layer.gradients(self.x, self.dy)
        self.assertIsInstance(result, swiglu.MlpGradients)
        self.assert_same(self.layer.backward(self.x, self.dy), dx)
        self.assert_same(self.layer.backward_async(self.x, self.dy).result(), dx)
        gate, up, down = (self.weights[name].astype(numpy.float64) for name in SHAPES)
        x, dy = (each.astype(numpy.float64).reshape(-1, HIDDEN) for each in (self.x, self.dy))
        e, g = x @ gate.T, x @ up.T
        s = 1 / (1 + numpy.exp(-e))
        dh = dy @ down
        de, df = dh * g * s * (1 + e * (1 - s)), dh * e * s
        for found, expected in ((dx, (de @ gate + df @ up).reshape(self.x.shape)), (d_gate, de.T @ x), (d_up, df.T @ x),
                                (d_down, dy.T @ (e * s * g))):
            self.assertEqual(found.shape, expected.shape)
            self.assertLess(numpy.abs(found.astype(numpy.float64) - expected).max(), 0.03 * numpy.abs(expected).max())
        self.assertEqual(d_gate.dtype, numpy.float32)
        outs = [numpy.zeros_like(each) for each in result]
        self.assertIs(self.layer.gradients(self.x, self.dy, out=outs).d_up_proj, outs[2])
        for found, expected in zip(outs, result):
            self.assert_same(found, expected)

    def test_results_of_the_library_are_arrays_like_others(self):
        result = self.layer.gradients(self.x, self.dy)
        kept = result.d_gate_proj[3:5]
        expected = kept.copy()
        del result
        kept += 1
        self.assert_same(kept, expected + 1)

    def test_errors(self):
        self.assert_code(Code.NOT_FOUND, self.client.mlp("tiny", 1).forward, self.x)
        error = self.assert_code(Code.INVALID_ARGUMENT, self.layer.forward, self.x[..., :9])
        self.assertIn(f"last dimension of 'x' is 9; 'mlp_tiny_0_forward' takes {HIDDEN}", error.message)
        self.assert_code(Code.INVALID_ARGUMENT, self.layer.forward, self.x.astype("float32"))
        self.assert_code(Code.INVALID_ARGUMENT, self.layer.backward_async(self.x, self.dy[:1]).result)
        with self.assertRaisesRegex(ValueError, "output 'd_gate_proj' is BF16; it takes FP32"):
            self.layer.gradients(self.x, self.dy, out=(self.x.copy(), *(matrix.copy() for matrix in self.weights.values())))
        with self.assertRaisesRegex(ValueError, "out has no array for 'd_gate_proj'"):
            self.layer.gradients(self.x, self.dy, out=(self.x.copy(), None, None, None))


if __name__ == "__main__":
    server_process.main()
