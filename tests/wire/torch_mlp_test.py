#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# MLPs on a GPU beside PyTorch: the same bits, if cuBLAS may not split its sums. SwiGLU itself is computed by the server's models
# of it, because PyTorch's exponential is another one. Needs a GPU, and an interpreter that has PyTorch.
import os
import pathlib
import shutil
import tempfile
import unittest

# Without room, cuBLAS does not split sums. It reads this when it starts.
os.environ.update({"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"})

import server_process
import tensor_files
from server_process import Server, skip

SHAPES = ((576, 1536), (4096, 11008))
TOKENS = (1, 2, 3, 8, 15, 16, 17, 64, 100, 128, 256, 500, 512, 700, 1024)


def torch_on_a_gpu(test):
    """PyTorch, set so that cuBLAS does not split sums; skips the test where there is none, or no GPU."""
    try:
        import torch  # pylint: disable=import-outside-toplevel
    except ImportError:
        skip(test, "no PyTorch for this interpreter")
    if not torch.cuda.is_available():
        skip(test, "no GPU")
    torch.backends.cuda.preferred_blas_library("cublaslt")
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = matmul.allow_fp16_reduced_precision_reduction = (False, False)
    return torch


class TorchMlpTest(unittest.TestCase):
    def setUp(self):
        self.torch = torch_on_a_gpu(self)
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def numbers(self, *shape, scale=1.0):
        return (self.torch.randn(*shape, device="cuda") * scale).to(self.dtype)

    def write(self, path, **tensors):
        name = {self.torch.bfloat16: "BF16", self.torch.float16: "FP16"}[self.dtype]
        return tensor_files.write_safetensors(self.folder / path, **{
            key: (name, list(tensor.shape), tensor.cpu().contiguous().view(self.torch.int16).numpy().tobytes())
            for key, tensor in tensors.items()})

    def read(self, path, shape):
        raw = bytearray(tensor_files.read_safetensors(self.folder / path)[3])
        return self.torch.frombuffer(raw, dtype=self.dtype).reshape(shape).cuda()

    def ask(self, command, *flags, **tensors):
        """Runs the command on tensors that it reads from files."""
        files = [f"--{name}={self.write(f'{name}.safetensors', t=tensor)}" for name, tensor in tensors.items()]
        result = server_process.run(server_process.CLIENT, command, f"--server={self.server.address}", "--overwrite", *flags, *files)
        self.assertEqual(result.returncode, 0, result.stderr)

    def mlp(self, **tensors):
        self.ask("mlp", "--model=m", "--layer=0", f"--out={self.folder}/out.safetensors", **tensors)
        return self.read("out.safetensors", tensors["x"].shape)

    def expected(self, x, dy):
        """y and dx, with PyTorch's products and the server's SwiGLU."""
        linear = self.torch.nn.functional.linear
        e, g = linear(x, self.gate), linear(x, self.up)
        self.ask("backward", f"--out_dir={self.folder}", dw=dy @ self.down, e=e, g=g)
        h, df, de = (self.read(f"{name}.safetensors", e.shape) for name in ("h", "df", "de"))
        return linear(h, self.down), df @ self.up + de @ self.gate

    def test_the_same_bits(self):
        for dtype in (self.torch.bfloat16, self.torch.float16):
            for hidden, intermediate in SHAPES:
                self.dtype = dtype
                self.torch.manual_seed(1)
                scale = hidden**-0.5
                self.gate, self.up = (self.numbers(intermediate, hidden, scale=scale) for _ in range(2))
                self.down = self.numbers(hidden, intermediate, scale=scale)
                weights = self.write("m.safetensors", **{f"{name}_proj.weight": getattr(self, name) for name in ("gate", "up", "down")})
                self.server = Server("--device=cuda", f"--mlp=m={weights}")
                self.addCleanup(self.server.kill)
                self.server.wait_for("all weights are loaded")
                for tokens in TOKENS:
                    with self.subTest(dtype=dtype, hidden=hidden, tokens=tokens):
                        x, dy = self.numbers(tokens, hidden), self.numbers(tokens, hidden)
                        y, dx = self.expected(x, dy)
                        differing = [int((a.view(self.torch.int16) != b.view(self.torch.int16)).sum())
                                     for a, b in ((self.mlp(x=x), y), (self.mlp(x=x, dy=dy), dx))]
                        print(f"{dtype} H = {hidden}, {tokens} tokens: {differing} elements of y and dx differ", flush=True)
                        self.assertEqual(differing, [0, 0])
                self.assertEqual(self.server.stop(), 0, self.server.log)


if __name__ == "__main__":
    server_process.main()
