#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# System regions of the Python client: arrays in shared memory, calls that move no bytes, and lifetimes.
import gc

import numpy

import swiglu
from client_fixture import BF16, ClientTest, random_arrays
import server_process
from swiglu import Code


class RegionsTest(ClientTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def arrays_in_a_region(self, count, like):
        region = self.client.system_region(count * like.nbytes)
        return [region.array(like.shape, like.dtype, i * like.nbytes) for i in range(count)]

    def test_call_moves_no_bytes(self):
        for dtype in ("float16", BF16, "float32"):
            e, g = random_arrays(2, (100, 40), dtype)
            places = self.arrays_in_a_region(3, e)
            places[0][:], places[1][:] = e, g
            statistics = swiglu.CallStatistics()
            h = self.client.forward(places[0], places[1], out=places[2], statistics=statistics)
            self.assertIs(h, places[2])
            self.assert_same(h, self.client.forward(e, g))
            self.assertIn(statistics.bytes_sent + statistics.bytes_received, range(1, 1000))

    def test_backward_in_place_and_mixed_with_ordinary_memory(self):
        dw, e, g = random_arrays(3, (100, 40))
        expected = self.client.backward(dw, e, g)
        places = self.arrays_in_a_region(3, e)
        for place, values in zip(places, (dw, e, g)):
            place[:] = values
        for found, right in zip(self.client.backward(*places, out=places), expected):
            self.assert_same(found, right)
        places[1][:] = e
        self.assert_same(self.client.backward(dw, places[1], g).de, expected.de)
        self.assert_same(self.client.backward_async(dw, places[1], g, out=(None, places[0], None)).result().df, expected.df)

    def test_region_lives_as_long_as_its_arrays(self):
        region = self.client.system_region(64, name="mine")
        self.assertEqual((region.name, region.size_bytes), ("mine", 64))
        self.assertEqual(self.client.list_system_regions(), [swiglu.RegionInfo("mine", 64)])
        self.assert_code(Code.ALREADY_EXISTS, self.client.system_region, 64, name="mine")
        part = region.array(4, offset=16)[1:]
        del region
        gc.collect()
        self.assertEqual(len(self.client.list_system_regions()), 1)
        part[:] = 1
        self.assertEqual(self.client.forward(part, part).shape, (3,))
        del part
        gc.collect()
        self.assertEqual(self.client.list_system_regions(), [])

    def test_region_outlives_a_closed_client(self):
        client = swiglu.Client(self.server.address)
        region = client.system_region(64)
        client.close()
        region.array(16)[:] = 2
        del region
        gc.collect()
        self.assertEqual(self.client.list_system_regions(), [])

    def test_region_of_another_client_is_ordinary_memory(self):
        [e] = random_arrays(1, (10, 10))
        [place] = self.arrays_in_a_region(1, e)
        place[:] = e
        statistics = swiglu.CallStatistics()
        other = swiglu.Client(self.server.address)
        self.assert_same(other.forward(place, place, statistics=statistics), self.client.forward(e, e))
        self.assertGreater(statistics.bytes_sent, 800)

    def test_errors(self):
        self.assert_code(Code.INVALID_ARGUMENT, self.client.system_region, 0)
        self.assert_code(Code.FAILED_PRECONDITION, swiglu.Client("127.0.0.1:1,127.0.0.1:2").system_region, 64)
        region = self.client.system_region(64)
        with self.assertRaises(TypeError):
            region.array(17)
        numpy.testing.assert_array_equal(region.array(16), numpy.zeros(16))


if __name__ == "__main__":
    server_process.main()
