#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The Python client with PyTorch on the CPU: tensors as arguments and results, and autograd beside PyTorch's own gradients. Skips where
# the interpreter has no PyTorch.
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/wire"))
import server_process  # noqa: E402
import tensor_files  # noqa: E402
from server_process import ServerTest, skip  # noqa: E402

if importlib.util.find_spec("torch"):
    import torch

    import swiglu.torch

    # How far a result may be off, relatively and absolutely.
    TOLERANCES = {torch.float32: (1e-5, 1e-6), torch.float16: (4e-3, 4e-3), torch.bfloat16: (3e-2, 3e-2)}

HIDDEN, INTERMEDIATE = 64, 176


def own_swiglu(e, g):
    """By PyTorch, in float32, which has everything on the CPU."""
    return (torch.nn.functional.silu(e.float()) * g.float()).to(e.dtype)


class TorchTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        if not importlib.util.find_spec("torch"):
            skip(cls(), f"no PyTorch for {sys.executable}")
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        torch.manual_seed(11)
        shapes = {"gate": (INTERMEDIATE, HIDDEN), "up": (INTERMEDIATE, HIDDEN), "down": (HIDDEN, INTERMEDIATE)}
        cls.weights = {name: (torch.randn(shape) * 0.1).bfloat16() for name, shape in shapes.items()}
        tensor_files.write_safetensors(cls.folder / "model.safetensors", **{
            f"model.layers.0.mlp.{name}_proj.weight": ("BF16", list(matrix.shape), matrix.view(torch.int16).numpy().tobytes())
            for name, matrix in cls.weights.items()})
        cls.SERVER_FLAGS = (f"--mlp=tiny={cls.folder}",)
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def setUp(self):
        self.client = swiglu.Client(self.server.address)
        self.addCleanup(self.client.close)

    def runTest(self):
        """For skip()."""

    def assert_close(self, found, expected):
        rtol, atol = TOLERANCES[expected.dtype]
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)

    def test_tensors_in_and_out(self):
        for dtype in TOLERANCES:
            dw, e, g = torch.randn(3, 4, 50).to(dtype)
            h = self.client.forward(e, g)
            self.assertIsInstance(h, torch.Tensor)
            self.assert_close(h, own_swiglu(e, g))
            self.assertTrue(torch.equal(self.client.backward(dw, e, g).h, h))
            self.assertTrue(torch.equal(self.client.forward_many([(e, g)])[0], h))
            out = torch.zeros_like(h)
            self.assertIs(self.client.forward(e, g, out=out), out)
            self.assertTrue(torch.equal(out, h))
            self.client.forward(e, g, out=e)
            self.assertTrue(torch.equal(e, h))

    def test_tensors_that_are_not_contiguous(self):
        fused = torch.randn(6, 40)
        e, g = fused.chunk(2, dim=-1)
        self.assert_close(self.client.forward(e, g), own_swiglu(e, g))
        with self.assertRaisesRegex(ValueError, "'h' is not contiguous"):
            self.client.forward(e, g, out=torch.zeros(20, 6).t())

    def test_tensor_whose_memory_has_the_negatives(self):
        e, g = torch.randn(2, 50)
        negated = torch.complex(g, -g).conj().imag
        self.assertTrue(negated.is_neg())
        self.assert_close(self.client.forward(e, negated), own_swiglu(e, g))
        # One element is contiguous.
        one = negated[:1]
        self.assertTrue(one.is_neg() and one.is_contiguous())
        self.assert_close(self.client.forward(e[:1], one), own_swiglu(e[:1], g[:1]))

    def test_errors(self):
        e = torch.randn(4)
        with self.assertRaisesRegex(TypeError, "dtype of 'e' is of code 2 of DLPack and of 64 bits"):
            self.client.forward(e.double(), e)
        with self.assertRaisesRegex(ValueError, "'e' requires a gradient"):
            self.client.forward(e.requires_grad_(), e)
        with self.assertRaisesRegex(TypeError, "'g' is sparse; a tensor is dense"):
            self.client.forward(e.detach(), e.detach().to_sparse())
        quantized = torch.quantize_per_tensor(e.detach(), 0.1, 0, torch.quint8)
        for tensor, words in ((e.detach().to("meta"), "'g' cannot be taken: .*meta"), (e.detach() > 0, "'g'.*[Bb]ool|dtype of 'g'"),
                              (quantized, "'g' cannot be taken: .*QUInt")):
            with self.assertRaisesRegex(TypeError, words):
                self.client.forward(e.detach(), tensor)
        with self.assertRaisesRegex(RuntimeError, "no client"):
            swiglu.torch.swiglu(e, e)

    def test_values_and_gradients_are_those_of_torch(self):
        for dtype in TOLERANCES:
            e, g = (torch.randn(2, 300).to(dtype).requires_grad_() for _ in range(2))
            dw = torch.randn(2, 300).to(dtype)
            h = swiglu.torch.swiglu(e, g, client=self.client)
            self.assert_close(h, own_swiglu(e, g))
            expected = torch.autograd.grad(own_swiglu(e, g), (e, g), dw)
            for found, right in zip(torch.autograd.grad(h, (e, g), dw), expected):
                self.assertEqual(found.dtype, dtype)
                self.assert_close(found, right)

    def test_gradients_through_other_functions(self):
        x = torch.randn(5, 8, requires_grad=True)
        swiglu.torch.set_default_client(self.client)
        self.addCleanup(swiglu.torch.set_default_client, None)
        found, = torch.autograd.grad(swiglu.torch.swiglu(*(x * 2).chunk(2, dim=-1)).sum(), x)
        expected, = torch.autograd.grad(own_swiglu(*(x * 2).chunk(2, dim=-1)).sum(), x)
        self.assert_close(found, expected)

    def test_only_one_input_needs_a_gradient(self):
        e, g = torch.randn(2, 30)
        g.requires_grad_()
        found, = torch.autograd.grad(swiglu.torch.swiglu(e, g, client=self.client).sum(), g)
        self.assert_close(found, torch.nn.functional.silu(e))

    def test_mlp(self):
        layer = swiglu.torch.Mlp("tiny", 0, client=self.client)
        self.assertEqual(repr(layer), "Mlp(name='tiny', layer=0)")
        self.assertEqual(list(layer.parameters()), [])
        x = torch.randn(2, 3, HIDDEN).bfloat16().requires_grad_()
        dy = torch.randn(2, 3, HIDDEN).bfloat16()
        y = layer(x)
        gate, up, down = (self.weights[name].float() for name in ("gate", "up", "down"))
        wide = x.detach().float().requires_grad_()
        right = own_swiglu(wide @ gate.t(), wide @ up.t()) @ down.t()
        self.assertEqual((y.dtype, y.shape), (torch.bfloat16, x.shape))
        self.assertLess((y.float() - right).abs().max(), 0.03 * right.abs().max())
        found, = torch.autograd.grad(y, x, dy)
        expected, = torch.autograd.grad(right, wide, dy.float())
        self.assertLess((found.float() - expected).abs().max(), 0.03 * expected.abs().max())
        gradients = self.client.mlp("tiny", 0).gradients(x.detach(), dy)
        self.assertTrue(torch.equal(gradients.dx, found))
        self.assertEqual((type(gradients.d_gate_proj), gradients.d_gate_proj.dtype, tuple(gradients.d_gate_proj.shape)),
                         (torch.Tensor, torch.float32, (INTERMEDIATE, HIDDEN)))

    def test_example(self):
        result = subprocess.run([sys.executable, "-B", ROOT / "client/python/examples/train.py", self.server.address],
                                capture_output=True, text=True, check=False, timeout=server_process.DEADLINE_S)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertRegex(result.stdout, r"\Athe loss went from 0\.\d+ to 0\.\d+\n\Z")


if __name__ == "__main__":
    server_process.main()
