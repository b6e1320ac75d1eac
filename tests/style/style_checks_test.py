#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Shows that the style checks catch what they are for: each test writes a small tree with one fault.
import pathlib
import tempfile
import unittest

import check_heads
import check_includes
import check_readme
import skip_reasons

HEAD = "// SPDX-License-Identifier: Apache-2.0\n//\n// A file that stands for many others in a test of the checks.\n"


class TreeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)


class CheckIncludesTest(TreeTest):
    def includes(self, path, included):
        self.write(path, HEAD + f"#include {included}\n")
        return check_includes.violations(self.root)

    def test_refuses_what_each_folder_may_not_include(self):
        for path, included in [
            ("kernels/cpu/forward.cc", '"absl/types/span.h"'),
            ("kernels/cuda/forward.cu", '"server/log/log.h"'),
            ("server/log/log.h", '"server/core/model.h"'),
            ("server/log/log.h", '"absl/strings/str_cat.h"'),
            ("server/batching/batcher.cc", "<cuda_runtime_api.h>"),
            ("server/batching/batcher.cc", "<grpcpp/grpcpp.h>"),
            ("server/batching/batcher.cc", '"proto/inference.pb.h"'),
            ("server/batching/batcher.cc", "<prometheus/counter.h>"),
            ("server/batching/batcher.cc", '"server/device/lane.h"'),
            ("server/core/model.h", '"server/batching/admission.h"'),
            ("server/device/lane.h", '"server/batching/admission.h"'),
            ("server/metrics/names.h", '"server/batching/admission.h"'),
            ("server/gpu/nvml.h", '"server/device/lane.h"'),
            ("server/memory/slab_pool.h", '"server/device/lane.h"'),
            ("server/connections/acceptor.h", '"server/transport/call.h"'),
            ("server/connections/acceptor.h", "<grpcpp/grpcpp.h>"),
            ("server/transport/call.h", '"server/service/router.h"'),
            ("server/transport/call.h", '"server/codec/errors.h"'),
            ("server/codec/errors.h", '"server/transport/call.h"'),
            ("server/codec/errors.h", '"server/service/router.h"'),
            ("server/codec/errors.h", '"server/inference/stages.h"'),
            ("server/device/lane.h", "<grpcpp/grpcpp.h>"),
            ("server/device/lane.h", '"server/transport/call.h"'),
            ("server/metrics/names.h", "<cuda_runtime_api.h>"),
            ("server/metrics/names.h", "<grpcpp/grpcpp.h>"),
            ("server/transport/call.h", "<cuda.h>"),
            ("server/transport/call.h", '"server/device/lane.h"'),
            ("server/transport/call.h", "<prometheus/counter.h>"),
            ("server/main.cc", "<cuda_runtime.h>"),
            ("client/connection.cc", '"server/codec/errors.h"'),
            ("client/connection.cc", '"server/base/address.h"'),
            ("client/cli/command_line.cc", '"CLI/CLI.hpp"'),
            ("server/main.cc", '"CLI/CLI.hpp"'),
            ("client/files/npy.cc", '"server/base/address.h"'),
            ("client/files/npy.cc", "<grpcpp/grpcpp.h>"),
            ("client/include/swiglu/connection.h", '"gmock/gmock.h"'),
            ("client/include/swiglu/mock_connection.h", "<grpcpp/grpcpp.h>"),
        ]:
            with self.subTest(path=path, included=included):
                self.assertEqual(len(self.includes(path, included)), 1)
                (self.root / path).unlink()

    def test_allows_what_the_layers_are_for(self):
        for path, included in [
            ("kernels/cpu/forward.cc", '"hwy/highway.h"'),
            ("server/batching/batcher.cc", '"absl/types/span.h"'),
            ("server/batching/batcher.cc", "<sys/mman.h>"),
            ("server/device/lane.h", "<cuda_runtime_api.h>"),
            ("server/metrics/names.h", '"server/core/observer.h"'),
            ("server/transport/call.h", '"server/batching/batcher.h"'),
            ("server/main.cc", '"server/metrics/names.h"'),
            ("client/connection.cc", "<string>"),
            ("client/include/swiglu/mock_connection.h", '"gmock/gmock.h"'),
            ("client/bench/echo_server.cc", '"server/base/address.h"'),
            ("client/cli/command_line.cc", '"server/base/command_line.h"'),
            ("server/base/command_line.cc", '"CLI/CLI.hpp"'),
        ]:
            with self.subTest(path=path, included=included):
                self.assertEqual(self.includes(path, included), [])

    def test_refuses_a_path_that_does_not_begin_at_the_root(self):
        self.assertEqual(
            self.includes("server/transport/call.cc", '"call.h"'),
            ['server/transport/call.cc:4: server/transport may not include "call.h" (unknown)'],
        )

    def test_a_public_header_belongs_to_the_folder_that_holds_it(self):
        self.write("kernels/include/swiglu/cpu.h", HEAD)
        self.assertEqual(self.includes("server/device/cpu_executor.cc", '"swiglu/cpu.h"'), [])
        self.assertEqual(
            self.includes("client/client.cc", '"swiglu/cpu.h"'),
            ['client/client.cc:4: client may not include "swiglu/cpu.h" (kernels)'],
        )


class CheckHeadsTest(TreeTest):
    def test_accepts_a_whole_head(self):
        self.write("server/a.h", HEAD + "#pragma once\n")
        self.write("tool", HEAD.replace("//", "#").join(["#!/bin/sh\n", ""]))
        self.assertEqual(check_heads.violations(self.root), [])

    def test_refuses_a_missing_licence_a_missing_paragraph_and_a_missing_guard(self):
        self.write("a.cc", "int a;\n")
        self.write("b.cc", "// SPDX-License-Identifier: Apache-2.0\n#include <string>\nint b;\n")
        self.write("c.h", HEAD)
        self.write("d.sh", "#!/bin/sh\necho\n")
        self.write("e.yaml", "kind: Service\n")
        self.write("f.go", "package main\n")
        found = sorted(sentence.split(":")[0] for sentence in check_heads.violations(self.root))
        self.assertEqual(found, ["a.cc", "b.cc", "c.h", "d.sh", "e.yaml", "f.go"])


class SkipReasonsTest(unittest.TestCase):
    def test_counts_each_reason_of_each_test(self):
        log = (
            "3/9 Testing: device_test\n"
            "/x/a_test.cc:12: Skipped\nno CUDA device\n\n"
            "/x/a_test.cc:30: Skipped\nno CUDA device\n\n"
            "4/9 Testing: wire_test\nskipped: no pip\n"
        )
        self.assertEqual(
            skip_reasons.reasons(log), {("device_test", "no CUDA device"): 2, ("wire_test", "no pip"): 1}
        )


class CheckReadmeTest(TreeTest):
    def faults(self, page):
        self.write("a.cc", "int a;\nint b;\n")
        self.write("README.md", page)
        return check_readme.violations(self.root)

    def test_takes_a_block_that_stands_in_its_file_and_links_to_files(self):
        self.assertEqual(self.faults("[a](a.cc)\n<!-- from a.cc -->\n```cpp\nint b;\n```\n```sh\nls\n```\n"), [])

    def test_refuses_blocks_that_changed_or_have_no_source_and_dead_links(self):
        self.assertEqual(len(self.faults("<!-- from a.cc -->\n```cpp\nint c;\n```\n")), 1)
        self.assertEqual(len(self.faults("<!-- from b.cc -->\n```cpp\nint b;\n```\n")), 1)
        for language in ("python", "go"):
            self.assertEqual(len(self.faults(f"```{language}\nprint()\n```\n")), 1)
        self.assertEqual(len(self.faults("[b](b.cc)\n")), 1)

    def test_refuses_an_index_that_leaves_out_a_page_of_its_folder(self):
        self.write("docs/guide/a.md", "text\n")
        self.write("docs/guide.md", "[a](guide/a.md)\n")
        self.assertEqual(self.faults("text\n"), [])
        self.write("docs/guide/b.md", "text\n")
        self.assertEqual(self.faults("text\n"), ["docs/guide.md: no link to b.md of its folder"])


if __name__ == "__main__":
    unittest.main()
