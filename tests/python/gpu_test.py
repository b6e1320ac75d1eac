#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The Python client with tensors on a GPU, which the server reads and writes where they are: PyTorch's, and CuPy's if it is there. Skips
# where the interpreter has no PyTorch, or PyTorch has no GPU.
import gc
import importlib.util
import os
import pathlib
import shutil
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/wire"))
import server_process  # noqa: E402
import tensor_files  # noqa: E402
from server_process import Server, ServerTest, skip  # noqa: E402

if importlib.util.find_spec("torch"):
    import torch

    import swiglu.torch
    from swiglu import Code

    DTYPES = (torch.float32, torch.float16, torch.bfloat16)

HIDDEN, INTERMEDIATE = 64, 176


def missing():
    """Why these tests cannot run, or nothing."""
    if not importlib.util.find_spec("torch"):
        return f"no PyTorch for {sys.executable}"
    return "" if torch.cuda.is_available() else "PyTorch has no GPU"


class GpuTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        if missing():
            skip(cls(), missing())
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        torch.manual_seed(11)
        shapes = {"gate": (INTERMEDIATE, HIDDEN), "up": (INTERMEDIATE, HIDDEN), "down": (HIDDEN, INTERMEDIATE)}
        weights = {name: (torch.randn(shape) * 0.1).bfloat16() for name, shape in shapes.items()}
        tensor_files.write_safetensors(cls.folder / "model.safetensors", **{
            f"model.layers.0.mlp.{name}_proj.weight": ("BF16", list(matrix.shape), matrix.view(torch.int16).numpy().tobytes())
            for name, matrix in weights.items()})
        cls.SERVER_FLAGS = ("--device=cuda", "--cuda_shared_memory=on", f"--mlp=tiny={cls.folder}")
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def setUp(self):
        self.client = swiglu.Client(self.server.address)
        self.addCleanup(self.client.close)

    def runTest(self):
        """For skip()."""

    def assert_code(self, code, call, *arguments, **options):
        with self.assertRaises(swiglu.Error) as raised:
            call(*arguments, **options)
        self.assertIs(raised.exception.code, code, raised.exception)

    def unregister_all(self):
        """By another client."""
        result = server_process.run(server_process.CLIENT, "regions", "--unregister_all", "--kind=cuda", f"--server={self.server.address}")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def assert_equal(self, found, expected):
        self.assertEqual((found.device.type, found.dtype, found.shape), ("cuda", expected.dtype, expected.shape))
        self.assertTrue(torch.equal(found.cpu(), expected))

    def test_same_bits_as_by_messages(self):
        for dtype in DTYPES:
            dw, e, g = torch.randn(3, 5, 333).to(dtype)
            on_gpu = [tensor.cuda() for tensor in (dw, e, g)]
            statistics = swiglu.CallStatistics()
            self.assert_equal(self.client.forward(*on_gpu[1:], statistics=statistics), self.client.forward(e, g))
            self.assertLess(statistics.bytes_sent + statistics.bytes_received, 1000)
            for found, right in zip(self.client.backward(*on_gpu), self.client.backward(dw, e, g)):
                self.assert_equal(found, right)

    def test_forms_and_places(self):
        dw, e, g = torch.randn(3, 64, 1000)
        h, right = self.client.forward(e, g), self.client.backward(dw, e, g)
        d_dw, d_e, d_g = (tensor.cuda() for tensor in (dw, e, g))
        out = torch.empty_like(d_e)
        self.assertIs(self.client.forward(d_e, d_g, out=out), out)
        self.assert_equal(out, h)
        self.assert_equal(self.client.forward_async(d_e, d_g).result(), h)
        for found in self.client.forward_many([(d_e, d_g)] * 3):
            self.assert_equal(found, h)
        # Some on the GPU, some on the host.
        self.assert_equal(self.client.forward(d_e, g), h)
        self.assertTrue(torch.equal(self.client.forward(e, d_g), h))
        # In place, and a tensor that is not contiguous.
        self.assert_equal(self.client.forward(d_e.t().contiguous().t(), d_g), h)
        self.client.backward(d_dw, d_e, d_g, out=(d_dw, d_e, d_g))
        for found, expected in zip((d_dw, d_e, d_g), right):
            self.assert_equal(found, expected)
        self.assertEqual(self.client.forward(torch.empty(0, 4).cuda(), torch.empty(0, 4).cuda()).shape, (0, 4))

    def test_waits_for_the_current_stream(self):
        e, g = torch.randn(2, 1000)
        h = self.client.forward(e, g)
        for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
            d_e, d_g = torch.zeros(2, 1000, device="cuda")
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(200_000_000)
                d_e.copy_(e, non_blocking=True)
                d_g.copy_(g, non_blocking=True)
                self.assert_equal(self.client.forward(d_e, d_g), h)

    def test_gradients_are_those_of_torch(self):
        for dtype in DTYPES:
            e, g = (torch.randn(2, 300, device="cuda").to(dtype).requires_grad_() for _ in range(2))
            dw = torch.randn(2, 300, device="cuda").to(dtype)
            h = swiglu.torch.swiglu(e, g, client=self.client)
            expected = torch.nn.functional.silu(e.float()) * g.float()
            tolerance = {"rtol": 3e-2, "atol": 3e-2} if dtype != torch.float32 else {"rtol": 1e-5, "atol": 1e-6}
            torch.testing.assert_close(h.float(), expected, **tolerance)
            for found, right in zip(torch.autograd.grad(h, (e, g), dw), torch.autograd.grad(expected, (e, g), dw.float())):
                self.assertEqual((found.dtype, found.device.type), (dtype, "cuda"))
                torch.testing.assert_close(found.float(), right.float(), **tolerance)

    def test_mlp(self):
        x, dy = torch.randn(2, 7, HIDDEN).bfloat16()
        layer = self.client.mlp("tiny", 0)
        self.assert_equal(layer.forward(x.cuda()), layer.forward(x))
        self.assert_equal(layer.backward(x.cuda(), dy.cuda()), layer.backward(x, dy))
        with self.assertRaisesRegex(ValueError, "gradients of tensors on a GPU take out"):
            layer.gradients(x.cuda(), dy.cuda())
        right = layer.gradients(x, dy)
        outs = [torch.empty_like(tensor, device="cuda") for tensor in right]
        for found, expected in zip(layer.gradients(x.cuda(), dy.cuda(), out=outs), right):
            self.assert_equal(found, expected)

    def test_memory_is_registered_once(self):
        e, g = torch.randn(2, 1000)
        h = self.client.forward(e, g)
        d_e, d_g = e.cuda(), g.cuda()
        self.assert_equal(self.client.forward(d_e, d_g), h)
        regions = self.client.list_cuda_regions()
        for _ in range(3):
            self.client.forward(d_e, d_g, out=d_e)
        self.assertEqual(self.client.list_cuda_regions(), regions)
        self.client.release_gpu_memory()
        self.assertEqual(self.client.list_cuda_regions(), [])
        self.assert_equal(self.client.forward(e.cuda(), d_g), h)
        self.client.close()
        self.assertEqual(swiglu.Client(self.server.address).list_cuda_regions(), [])

    def test_memory_that_was_freed_is_not_used_again(self):
        shape = (30 << 20) // 4
        for value in (1, 2, 3):
            e, g = torch.full((2, shape), value, dtype=torch.float32)
            d_e, d_g = e.cuda(), g.cuda()
            self.assert_equal(self.client.forward(d_e, d_g), self.client.forward(e, g))
            del d_e, d_g
            gc.collect()
            torch.cuda.empty_cache()
        # Those of the last round, and of the tensors that live for longer.
        self.assertLess(len(self.client.list_cuda_regions()), 6)

    def test_regions_that_the_server_has_forgotten(self):
        e, g = torch.randn(2, 1000)
        h = self.client.forward(e, g)
        d_e, d_g = e.cuda(), g.cuda()
        self.assert_equal(self.client.forward(d_e, d_g), h)
        self.unregister_all()
        self.assert_equal(self.client.forward(d_e, d_g), h)
        self.unregister_all()
        self.assert_code(Code.NOT_FOUND, self.client.forward_async(d_e, d_g).result)
        self.assert_equal(self.client.forward_async(d_e, d_g).result(), h)
        regions = self.client.list_cuda_regions()
        x = torch.zeros(1, HIDDEN, device="cuda", dtype=torch.bfloat16)
        self.assert_code(Code.NOT_FOUND, self.client.mlp("nope", 0).forward, x)
        self.assertLessEqual({region.name for region in regions}, {region.name for region in self.client.list_cuda_regions()})

    def test_registration_has_the_time_of_the_call(self):
        d_e = torch.randn(1000, device="cuda")
        self.assert_code(Code.DEADLINE_EXCEEDED, self.client.forward, d_e, d_e, timeout=0)
        errors = self.client.forward_many([(d_e, d_e)] * 3, timeout=0, return_exceptions=True)
        self.assertEqual([error.code for error in errors], [Code.DEADLINE_EXCEEDED] * 3)
        self.assertEqual(self.client.list_cuda_regions(), [])

    def test_ctrl_c_ends_a_registration(self):
        code = """
import signal, socket, sys, threading, torch, swiglu
listener = socket.create_server(("127.0.0.1", 0))
e = torch.ones(8, device="cuda")
for wait in (lambda: client.forward(e, e), lambda: client.forward_async(e, e), lambda: client.forward_many([(e, e)] * 3)):
    client = swiglu.Client("127.0.0.1:%d" % listener.getsockname()[1], timeout=600, num_connections=1)
    # The call has begun when its connection comes. Nobody answers.
    interrupt = threading.Thread(target=lambda: (peers.append(listener.accept()), signal.raise_signal(signal.SIGINT)))
    peers = []
    interrupt.start()
    try:
        wait()
    except KeyboardInterrupt:
        print("interrupted")
    interrupt.join()
    client.close()
"""
        result = server_process.run(sys.executable, "-B", "-c", code)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "interrupted\n" * 3, ""))

    def test_no_context_on_a_gpu_that_is_not_used(self):
        if torch.cuda.device_count() < 2:
            skip(self, "PyTorch has one GPU")
        code = """
import ctypes, sys, torch, swiglu
e = torch.ones(1000, device="cuda:1")
client = swiglu.Client(sys.argv[1])
client.forward(e, e)
client.close()
flags, is_active = ctypes.c_uint(), ctypes.c_int()
assert ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(is_active)) == 0
print(torch.cuda.current_device(), is_active.value)
"""
        result = server_process.run(sys.executable, "-B", "-c", code, self.server.address)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "0 0\n", ""))

    def test_outputs_of_a_call_that_was_given_up_are_kept(self):
        d_e, d_g = torch.randn(2, 5 << 20, device="cuda")
        self.client.forward(d_e, d_g)
        before = torch.cuda.memory_allocated()
        self.server.signal(signal.SIGSTOP)
        self.addCleanup(self.server.signal, signal.SIGCONT)
        os.waitpid(self.server.pid, os.WUNTRACED)
        self.assert_code(Code.DEADLINE_EXCEEDED, self.client.forward, d_e, d_g, timeout=0.5)
        self.server.signal(signal.SIGCONT)
        gc.collect()
        self.assertGreaterEqual(torch.cuda.memory_allocated(), before + (5 << 20) * 4)
        before = torch.cuda.memory_allocated()
        # Not sent.
        self.assert_code(Code.DEADLINE_EXCEEDED, self.client.forward, d_e, d_g, timeout=0)
        gc.collect()
        self.assertEqual(torch.cuda.memory_allocated(), before)
        before = torch.cuda.memory_allocated()
        self.assert_code(Code.INVALID_ARGUMENT, self.client.forward, d_e, d_g, request_id="\n")
        gc.collect()
        self.assertEqual(torch.cuda.memory_allocated(), before)

    def test_errors(self):
        e = torch.randn(1000, device="cuda")
        with self.assertRaisesRegex(ValueError, "'e' requires a gradient"):
            self.client.forward(e.clone().requires_grad_(), e)
        with Server("--device=cuda") as server:
            self.assert_code(Code.UNIMPLEMENTED, swiglu.Client(server.address).forward, e, e)
        self.assert_code(Code.INVALID_ARGUMENT, swiglu.Client(self.server.address, server_device=99).forward, e, e)

    def test_example(self):
        result = server_process.run(sys.executable, "-B", ROOT / "client/python/examples/on_gpu.py", self.server.address)
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (0, "1048576 elements on cuda:0, 1048576 of them finite\n", ""))

    def test_cupy(self):
        if not importlib.util.find_spec("cupy"):
            skip(self, f"no CuPy for {sys.executable}")
        import cupy  # pylint: disable=import-outside-toplevel
        e, g = cupy.random.normal(size=(2, 1000)).astype("float32")
        out = cupy.empty_like(e)
        expected = self.client.forward(e.get(), g.get())
        self.assertIs(self.client.forward(e, g, out=out), out)
        self.assertEqual(out.get().tobytes(), expected.tobytes())
        self.assertEqual(self.client.forward(e, g).tobytes(), expected.tobytes())


if __name__ == "__main__":
    server_process.main()
