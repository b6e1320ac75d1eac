#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The forms of a call that do not block: futures, asyncio, and many calls at once. All give the bits of the form that blocks.
import asyncio
import gc
import sys
import threading
import time
import weakref

import numpy

import swiglu
from client_fixture import BF16, ClientTest, SilentPeer, random_arrays
import server_process
from server_process import DEADLINE_S
from swiglu import Code

NUM_CALLS = 64


class FormsTest(ClientTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def setUp(self):
        super().setUp()
        self.calls = [tuple(random_arrays(2, (128,), seed=seed)) for seed in range(NUM_CALLS)]
        self.expected = [self.client.forward(e, g) for e, g in self.calls]

    def assert_expected(self, results):
        self.assertEqual(len(results), len(self.expected))
        for found, expected in zip(results, self.expected):
            self.assert_same(found, expected)

    def test_without_streams(self):
        with swiglu.Client(self.server.address, streams=False) as client:
            self.assert_expected([client.forward(e, g) for e, g in self.calls])

    def test_futures(self):
        futures = [self.client.forward_async(e, g) for e, g in self.calls]
        self.assert_expected([future.result() for future in futures])
        self.assertTrue(futures[0].done())
        self.assertIs(futures[0].result(), futures[0].result(timeout=0))
        self.assertIsNone(futures[0].exception())
        self.assertFalse(futures[0].cancel())

    def test_future_of_backward_with_out_and_statistics(self):
        dw, e, g = random_arrays(3)
        expected = self.client.backward(dw, e, g)
        statistics = swiglu.CallStatistics()
        df = numpy.zeros_like(e)
        result = self.client.backward_async(dw, e, g, out=(None, df, None), statistics=statistics).result()
        self.assertIs(result.df, df)
        for found, right in zip(result, expected):
            self.assert_same(found, right)
        self.assertEqual(statistics.num_messages, 1)

    def test_exceptions_of_futures(self):
        e, g = random_arrays(2)
        future = self.client.forward_async(e, g[:1])
        self.assertIs(future.exception().code, Code.INVALID_ARGUMENT)
        self.assert_code(Code.INVALID_ARGUMENT, future.result)
        with self.assertRaises(TypeError):
            self.client.forward_async(e, [1.0])

    def test_result_does_not_wait_longer_than_its_timeout(self):
        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            future = client.forward_async(*random_arrays(2))
            with self.assertRaisesRegex(TimeoutError, "the call has not ended yet") as raised:
                future.result(timeout=0.01)
            self.assertNotIsInstance(raised.exception, swiglu.Error)
            self.assertFalse(future.done())
            self.assertTrue(future.cancel())
            self.assert_code(Code.CANCELLED, future.result, timeout=DEADLINE_S)

    def test_another_thread_may_cancel_a_wait(self):
        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            future = client.forward_async(*random_arrays(2))
            ended = []
            thread = threading.Thread(target=lambda: ended.append(future.exception()))
            thread.start()
            peer.wait_for_connection()
            future.cancel()
            thread.join(DEADLINE_S)
            self.assertIs(ended[0].code, Code.CANCELLED)

    def test_arrays_of_a_dropped_future_live_until_its_call_has_ended(self):
        class Noted(numpy.ndarray):
            pass

        e, g = random_arrays(2)
        e = e.view(Noted)
        gone = weakref.ref(e)
        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            future = client.forward_async(e, g, timeout=10 * DEADLINE_S)
            del e
            gc.collect()
            self.assertIsNotNone(gone())
            del future
            # Cancelled by now. Any further call lets go of what has ended.
            deadline = time.monotonic() + DEADLINE_S
            while gone() is not None:
                self.assertLess(time.monotonic(), deadline)
                self.client.forward_async(g, g).result()

    def test_asyncio(self):
        async def run():
            return await asyncio.gather(*(self.client.forward_async(e, g) for e, g in self.calls))

        for _ in range(2):
            self.assert_expected(asyncio.run(run()))

    def test_asyncio_awaits_what_has_ended_and_what_failed(self):
        e, g = random_arrays(2)

        async def run():
            future = self.client.forward_async(e, g)
            future.result()
            await future
            with self.assertRaises(swiglu.InvalidArgumentError):
                await self.client.forward_async(e, g[:1])
            return await future

        self.assert_same(asyncio.run(run()), self.client.forward(e, g))

    def test_asyncio_loop_goes_on_meanwhile_and_a_cancelled_task_cancels_its_call(self):
        async def run(client, peer):
            future = client.forward_async(*random_arrays(2))

            async def wait():
                return await future

            task = asyncio.ensure_future(wait())
            await asyncio.get_running_loop().run_in_executor(None, peer.wait_for_connection)
            self.assertFalse(task.done())
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            with self.assertRaises(swiglu.Error) as raised:
                await future
            self.assertIs(raised.exception.code, Code.CANCELLED)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.forward_many_async([random_arrays(2)]), 0.01)

        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            asyncio.run(run(client, peer))

    def test_many(self):
        self.assert_expected(self.client.forward_many(self.calls))
        self.assert_expected(self.client.forward_many(iter(self.calls)))
        self.assert_expected(self.client.forward_many_async(self.calls).result())
        self.assertEqual(self.client.forward_many([]), [])
        self.assertEqual(self.client.forward_many_async([]).result(), [])
        out = [None if i % 2 else numpy.zeros(128, "float32") for i in range(NUM_CALLS)]
        results = self.client.forward_many(self.calls, out=out)
        self.assert_expected(results)
        self.assertIs(results[2], out[2])

    def test_many_backward(self):
        calls = [random_arrays(3, seed=seed) for seed in range(5)]
        outs = [None, calls[1], None, (None, None, calls[3][2]), None]
        expected = [self.client.backward(*call) for call in calls]
        results = self.client.backward_many(calls, out=outs)
        self.assertIs(results[1].h, calls[1][0])
        self.assertIs(results[3].de, calls[3][2])
        for found, right in zip(results, expected):
            for one, other in zip(found, right):
                self.assert_same(one, other)

    def num_requests(self, client, *arguments, **options):
        """How many requests of FP32 a forward_many makes."""
        def count():
            return self.server.metric("swiglu_requests_total", model="swiglu_forward_fp32", code="OK")

        before = count()
        self.assert_expected(client.forward_many(*arguments, **options))
        return count() - before

    def test_many_small_calls_are_one_request(self):
        self.assertEqual(self.num_requests(self.client, self.calls), 1)
        out = [g for _, g in self.calls]
        self.assertEqual(self.num_requests(self.client, self.calls, out=out), 1)

    def test_many_calls_that_are_too_large_to_join(self):
        # The inputs of a call have 1 KiB.
        for limit, num_requests in ((0, NUM_CALLS), (1023, NUM_CALLS), (1024, 1)):
            with swiglu.Client(self.server.address, coalesce_bytes=limit) as client:
                self.assertEqual(self.num_requests(client, self.calls), num_requests)

    def test_many_calls_that_may_be_sent_twice_are_smaller_requests(self):
        # The inputs of 64 calls have 64 KiB.
        with swiglu.Client(self.server.address, hedge_delay=DEADLINE_S) as client:
            self.assertEqual(self.num_requests(client, self.calls), 1)
            self.calls, self.expected = self.calls * 2, self.expected * 2
            self.assertEqual(self.num_requests(client, self.calls), 2)
        self.assertEqual(self.num_requests(self.client, self.calls), 1)

    def test_many_more_requests_than_are_under_way_at_once(self):
        small, half = [tuple(random_arrays(2, (3,), dtype)) for dtype in ("float32", "float16")]
        expected = [self.client.forward(*call) for call in (small, small, half, half)] * 100
        for found, right in zip(self.client.forward_many([small, small, half, half] * 100), expected):
            self.assert_same(found, right)
        # Once the first requests are cancelled, each further one ends while it is started.
        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            future = client.forward_many_async([small, small, half, half] * 10000, timeout=10 * DEADLINE_S, return_exceptions=True)
            future.cancel()
            self.assertEqual({error.code for error in future.result(timeout=DEADLINE_S)}, {Code.CANCELLED})

    def test_many_of_several_dtypes_sizes_and_places(self):
        region = self.client.system_region(3 * 4000)
        places = [region.array(1000, "float32", offset=4000 * i) for i in range(3)]
        places[0][:], places[1][:] = random_arrays(2, (1000,))
        calls = [random_arrays(2, shape, dtype, seed) for seed, (shape, dtype) in enumerate([
            ((5,), "float32"), ((2, 7), "float32"), ((0, 3), "float32"), ((9,), "float16"), ((9,), BF16), ((3,), BF16), ((), BF16),
            ((70000,), BF16), ((11,), BF16), ((12,), BF16), ((30000,), "float32"), ((13,), "float32"), ((14,), "float32")])]
        calls += [places[:2]] * 2 + [random_arrays(2)] * 300
        outs = [None] * len(calls)
        outs[13] = places[2]
        results = self.client.forward_many(calls, out=outs)
        self.assertIs(results[13], places[2])
        for found, call in zip(results, calls):
            self.assert_same(found, self.client.forward(*call))

    def test_many_of_which_some_fail(self):
        e, g = random_arrays(2)
        calls = [(e, g), (e, g[:1]), (e, g), (e, g[:2])]
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.forward_many, calls)
        self.assertIn("[1,37]", error.message)
        results = self.client.forward_many(calls, return_exceptions=True)
        self.assert_same(results[2], self.client.forward(e, g))
        self.assertIn("[2,37]", results[3].message)
        self.assert_code(Code.DEADLINE_EXCEEDED, self.client.forward_many, self.calls, timeout=0)
        for calls, out, words in (([(e,)], None, "a call has 1 inputs; it takes 2"), ([(e, g)], [], "out has 0 elements"),
                                  ([(e, g)], [None, None], "out has 2 elements for 1 calls")):
            with self.assertRaisesRegex(ValueError, words):
                self.client.forward_many(calls, out=out)

    def test_no_reference_is_left(self):
        e, g = random_arrays(2)
        before = sys.getrefcount(e), sys.getrefcount(g)
        self.client.forward_many([(e, g)] * 3)

        async def run():
            await self.client.forward_async(e, g)

        asyncio.run(run())
        self.assertEqual((sys.getrefcount(e), sys.getrefcount(g)), before)


class FrugalServerTest(ClientTest):
    SERVER_FLAGS = ("--max_request_bytes=8192",)

    def test_many_calls_that_the_server_takes_one_by_one(self):
        calls = [random_arrays(2, (128,), seed=seed) for seed in range(NUM_CALLS)]
        for found, call in zip(self.client.forward_many(calls), calls):
            self.assert_same(found, self.client.forward(*call))
        for found, call in zip(self.client.backward_many([(e, e, g) for e, g in calls]), calls):
            self.assert_same(found.h, self.client.forward(*call))


if __name__ == "__main__":
    server_process.main()
