#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: many small calls under way at once, by a list, by futures and by asyncio. The library sends dozens of them in one message.
# `python3 many_calls.py HOST:PORT` ends with 0 if all forms give the same results.
import asyncio
import sys

import numpy as np

import swiglu


async def with_asyncio(client, calls):
    return await asyncio.gather(*(client.forward_async(e, g) for e, g in calls))


def main(address):
    client = swiglu.Client(address)
    calls = [np.random.randn(2, 128).astype("float32") for _ in range(64)]

    # One call for each pair. The fastest form.
    results = client.forward_many(calls)

    # Futures, whose results may be asked for in any order.
    futures = [client.forward_async(e, g) for e, g in calls]
    others = [future.result(timeout=10) for future in futures]

    # In a coroutine, a future can be awaited.
    more = asyncio.run(with_asyncio(client, calls))

    for one, two, three in zip(results, others, more):
        if not (one.tobytes() == two.tobytes() == three.tobytes()):
            sys.exit("wrong: the results differ")
    print(f"{len(results)} results are the same in every form")


if __name__ == "__main__":
    main(*sys.argv[1:])
