#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What the Python client takes as tensors and gives as results: dtypes, kinds of arrays, out=, and arrays that are not contiguous.
import array
import sys

import numpy

import swiglu
from client_fixture import BF16, DTYPES, ClientTest, contract, random_arrays
import server_process


class Exporter:
    """An array by DLPack alone. `keywords`: whether it knows versions."""

    def __init__(self, values, keywords=True):
        self._values = values
        self._keywords = keywords

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()

    def __dlpack__(self, **keywords):
        if keywords and not self._keywords:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self._values.__dlpack__(**keywords)


class Interface:
    """An array by the array interface alone."""

    def __init__(self, values):
        self._values = values
        self.__array_interface__ = values.__array_interface__


class ArraysTest(ClientTest):
    def test_forward_is_right_in_every_dtype(self):
        for kind, dtype in DTYPES.items():
            e, g = random_arrays(2, dtype=dtype)
            h = self.client.forward(e, g)
            self.assertEqual((type(h), h.dtype, h.shape), (numpy.ndarray, dtype, e.shape))
            self.assertEqual(contract.forward_faults(kind, e.tobytes(), g.tobytes(), h.tobytes()), [])

    def test_backward_is_right_in_every_dtype(self):
        for kind, dtype in DTYPES.items():
            dw, e, g = random_arrays(3, dtype=dtype)
            h, df, de = result = self.client.backward(dw, e, g)
            self.assertIsInstance(result, swiglu.BackwardResult)
            self.assertEqual(contract.backward_faults(kind, *(each.tobytes() for each in (dw, e, g, h, df, de))), [])
            self.assert_same(result.h, self.client.forward(e, g))

    def test_shapes_without_elements_and_without_dimensions(self):
        for shape in ((), (0,), (2, 0, 3), (1, 1), (2, 3, 4, 5)):
            e, g = random_arrays(2, shape)
            e, g = numpy.asarray(e), numpy.asarray(g)
            self.assertEqual(self.client.forward(e.astype("float32"), g.astype("float32")).shape, shape)

    def test_out_is_written_and_returned(self):
        e, g = random_arrays(2)
        out = numpy.zeros_like(e)
        self.assertIs(self.client.forward(e, g, out=out), out)
        self.assert_same(out, self.client.forward(e, g))

    def test_out_may_be_an_input(self):
        dw, e, g = random_arrays(3)
        h, expected = self.client.forward(e, g), self.client.backward(dw, e, g)
        result = self.client.backward(dw, e.copy(), g, out=(dw, None, g))
        self.assertIs(result.h, dw)
        self.assertIs(result.de, g)
        for found, right in zip(result, expected):
            self.assert_same(found, right)
        self.client.forward(e, random_arrays(3)[2], out=e)
        self.assert_same(e, h)

    def test_out_that_does_not_fit_is_refused(self):
        e, g = random_arrays(2, (4, 8))
        read_only = numpy.zeros_like(e)
        read_only.flags.writeable = False
        long = numpy.zeros((5, 8), "float32")
        for out, words in ((numpy.zeros((4, 4), "float32"), r"shape of output 'h' is \[4,4\]; the inputs have \[4,8\]"),
                           (numpy.zeros((4, 16), "float16"), "output 'h' is FP16; it takes FP32"),
                           (numpy.zeros((8, 4), "float32").T, "'h' is not contiguous, so it cannot be written"),
                           (read_only, "read-only")):
            with self.assertRaisesRegex(ValueError, words):
                self.client.forward(e, g, out=out)
        long[:4] = e
        with self.assertRaisesRegex(ValueError, "'h' overlaps 'e' in part"):
            self.client.forward(long[:4], g, out=long[1:])
        with self.assertRaisesRegex(ValueError, "'df' overlaps 'h'"):
            self.client.backward(e, e, g, out=(long[:4], long[:4], None))
        with self.assertRaisesRegex(ValueError, "out has 2 arrays; it takes 3"):
            self.client.backward(e, e, g, out=(e, g))

    def test_array_that_is_not_contiguous_is_copied(self):
        for dtype in DTYPES.values():
            [fused] = random_arrays(1, (5, 64), dtype)
            e, g = fused[:, :32], fused[:, 32:]
            self.assert_same(self.client.forward(e, g), self.client.forward(e.copy(), g.copy()))
            self.assert_same(self.client.forward(e.T, g.T), numpy.ascontiguousarray(self.client.forward(e, g).T))

    def test_dlpack(self):
        for dtype in ("float16", "float32"):
            e, g = random_arrays(2, dtype=dtype)
            expected = self.client.forward(e, g)
            for keywords in (True, False):
                self.assert_same(self.client.forward(Exporter(e, keywords), Exporter(g, keywords)), expected)
                out = numpy.zeros_like(e)
                exporter = Exporter(out, keywords)
                self.assertIs(self.client.forward(e, g, out=exporter), exporter)
                self.assert_same(out, expected)
        read_only = numpy.zeros_like(e)
        read_only.flags.writeable = False
        with self.assertRaisesRegex(ValueError, "'h' is read-only"):
            self.client.forward(e, g, out=Exporter(read_only))
        with self.assertRaisesRegex(ValueError, "'e' is not contiguous"):
            self.client.forward(Exporter(e[:, :4]), g[:, :4])

    def test_dlpack_of_a_device_is_refused(self):
        class OnDevice(Exporter):
            def __dlpack_device__(self):
                return 10, 0

        e, g = random_arrays(2)
        with self.assertRaisesRegex(TypeError, "'e' is on a device of type 10 of DLPack, neither on the host nor on a GPU of CUDA"):
            self.client.forward(OnDevice(e), g)

    def test_memory_of_a_gpu_without_a_gpu(self):
        class OnGpu(Exporter):
            def __dlpack_device__(self):
                return 2, 99

            def __dlpack__(self, *, stream, **keywords):
                streams.append(stream)
                return super().__dlpack__(**keywords)

        e, g = random_arrays(2)
        for keywords in (True, False):
            streams = []
            with self.assertRaisesRegex(swiglu.Error, "(cannot wait for the work of GPU 99: cuda|this package is built without CUDA)"):
                self.client.forward(OnGpu(e, keywords), g)
            # The legacy default stream of CUDA.
            self.assertEqual(set(streams), {1})

    def test_array_interface_and_buffers(self):
        e, g = random_arrays(2, (40,))
        expected = self.client.forward(e, g)
        self.assert_same(self.client.forward(Interface(e), array.array("f", g)), expected)
        out = array.array("f", bytes(160))
        self.assertIs(self.client.forward(memoryview(e), g, out=out), out)
        self.assertEqual(out.tobytes(), expected.tobytes())

    def test_input_may_be_read_only(self):
        e, g = random_arrays(2)
        expected = self.client.forward(e, g)
        e.flags.writeable = False
        self.assert_same(self.client.forward(e, g), expected)
        self.assert_same(self.client.forward(Exporter(e), g), expected)

    def test_what_is_no_tensor_is_a_type_error(self):
        e, g = random_arrays(2)
        for wrong, words in (([1.0], "'e' is of type list, which is no array"), (None, "'e' is of type NoneType"),
                             (e.astype("float64"), "dtype of 'e' is float64; a tensor is float16, bfloat16 or float32"),
                             (e.astype(">f4"), "dtype of 'e' is >f4"), (Exporter(e.astype("int32")), "dtype of 'e' is of code 0")):
            with self.assertRaisesRegex(TypeError, words):
                self.client.forward(wrong, g)

    def test_no_reference_is_left(self):
        e, g = random_arrays(2)
        h = self.client.forward(e, g)
        self.client.forward_async(e, g).result()
        self.client.forward_many([(e, g)] * 3)
        self.client.forward(Exporter(e), g, out=h)
        with self.assertRaises(swiglu.Error):
            self.client.forward(e, g[:1])
        # The variable, and the argument of the function.
        self.assertEqual((sys.getrefcount(e), sys.getrefcount(g), sys.getrefcount(h)), (2, 2, 2))

    def test_large_operation_is_split(self):
        e, g = random_arrays(2, (300, 100), BF16)
        client = swiglu.Client(self.server.address, max_message_bytes=65536, chunk_bytes=16384)
        statistics = swiglu.CallStatistics()
        self.assert_same(client.forward(e, g, statistics=statistics), self.client.forward(e, g))
        self.assertGreater(statistics.num_messages, 4)


if __name__ == "__main__":
    server_process.main()
