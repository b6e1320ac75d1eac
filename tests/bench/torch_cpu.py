#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Times PyTorch's silu(e) * g on all cores, for the comparison in docs/performance.md. Needs PyTorch.
import os
import statistics
import time

import torch


def main():
    torch.set_num_threads(os.cpu_count())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for n in (22_544_384, 2**26):
            e, g = (torch.randn(n).to(dtype) for _ in range(2))
            times = []
            for _ in range(9):
                begin = time.perf_counter()
                torch.nn.functional.silu(e) * g
                times.append(time.perf_counter() - begin)
            print(f"{dtype} {n} {statistics.median(times) * 1e6:.0f} us")


if __name__ == "__main__":
    main()
