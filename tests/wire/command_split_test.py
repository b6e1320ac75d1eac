#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# A tensor larger than one message, through both programs: the command splits it, the server sees many requests, and each
# number lands where it belongs. The inputs are files of 1 GiB each, with holes where they are zero; the result is not.
import math
import pathlib
import random
import re
import struct
import tempfile
import unittest

import contract
import server_process
from contract import FP16
from server_process import Server

# Two tensors of this shape in FP16 exceed the 2^31 - 1 bytes of a message.
SHAPE = (2**14 + 1, 2**15)
NUM_ELEMENTS = math.prod(SHAPE)
BLOCK_BYTES = 1 << 24


def write_sparse_npy(path, elements):
    """Writes zeros of SHAPE, but for `elements`: bit patterns by index."""
    header = repr({"descr": "<f2", "fortran_order": False, "shape": SHAPE}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        start = file.tell()
        file.truncate(start + 2 * NUM_ELEMENTS)
        for index, bits in elements.items():
            file.seek(start + 2 * index)
            file.write(struct.pack("<H", bits))


def read_non_zero(path):
    """Returns the header's text and the elements, by index, whose bit pattern is not zero."""
    zeros = bytes(BLOCK_BYTES)
    found = {}
    with open(path, "rb") as file:
        header = file.read(10)
        header = file.read(struct.unpack("<H", header[8:])[0]).decode()
        index = 0
        while block := file.read(BLOCK_BYTES):
            if block != zeros[:len(block)]:
                for match in re.finditer(rb"[^\0]", block):
                    at = match.start() // 2
                    found[index + at] = struct.unpack_from("<H", block, 2 * at)[0]
            index += len(block) // 2
    return header, index, found


class SplitTest(unittest.TestCase):
    def test_tensor_larger_than_a_message_is_split_and_right(self):
        source = random.Random(3)
        places = sorted({0, 1, NUM_ELEMENTS - 1, *(source.randrange(NUM_ELEMENTS) for _ in range(3000))})
        e = {place: FP16.round(source.uniform(0.5, 4)) for place in places}
        g = {place: FP16.round(source.uniform(0.5, 4)) for place in places}
        with tempfile.TemporaryDirectory() as name, Server() as server:
            folder = pathlib.Path(name)
            write_sparse_npy(folder / "e.npy", e)
            write_sparse_npy(folder / "g.npy", g)
            result = server_process.run(server_process.CLIENT, "forward", f"--e={folder}/e.npy", f"--g={folder}/g.npy",
                                        f"--out={folder}/h.npy", f"--server={server.address}")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertGreater(server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK"), 1)
            self.assertEqual(server.metric("swiglu_elements_total", model="swiglu_forward_fp16"), NUM_ELEMENTS)
            header, count, h = read_non_zero(folder / "h.npy")
            self.assertIn(str(SHAPE), header)
            self.assertEqual(count, NUM_ELEMENTS)
            self.assertEqual(sorted(h), places)
            self.assertEqual(contract.forward_faults(FP16, *(struct.pack(f"<{len(places)}H", *(by[place] for place in places))
                                                             for by in (e, g, h))), [])
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    server_process.main()
