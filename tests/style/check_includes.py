#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Fails on an #include that the layering forbids: every folder lists what it may include, anything else is an error. Calls
# go one way, from service by way of inference, codec and batching to device and kernels, and this is what keeps it so.
import pathlib
import re
import sys

import source_tree

# What an included path is, by its beginning. The first match counts.
KINDS = [
    (r"(cuda|nvml|driver_types|math_constants|cooperative_groups|device_launch)[\w/]*\.h$|(cub|thrust|cuda|nv)/", "cuda"),
    (r"(sys|net|netinet|arpa|linux)/", "std"),
    (r"(unistd|fcntl|signal|poll|time|netdb|errno|string|pthread|sched|dlfcn|malloc|stdint|stddef|stdlib|stdio)\.h$", "std"),
    (r"(imm|x86|cpuid)\w*\.h$", "std"),
    (r"[a-z_0-9]+$", "std"),
    (r"absl/", "absl"),
    (r"(grpc|grpcpp)/", "grpc"),
    (r"google/protobuf/", "protobuf"),
    (r"proto/\w+(\.grpc)?\.pb\.h$", "proto"),
    (r"prometheus/", "prometheus"),
    (r"(spdlog|fmt)/", "spdlog"),
    (r"nlohmann/", "json"),
    (r"openssl/", "openssl"),
    (r"hwy/", "hwy"),
    (r"gperftools/", "tcmalloc"),
    (r"CLI/", "cli11"),
    (r"curl/", "curl"),
    (r"gmock/", "gmock"),
    (r"pybind11/", "pybind11"),
    (r"version/version\.h$", "version"),
    (r"server/(base|formats|log|core|gpu|memory|device|regions|weights|metrics|batching|connections|transport|codec|inference|service)/", None),  # the folder's own name
    (r"server/\w+\.h$", "server"),
    (r"kernels/", "kernels"),
    (r"client/files/", "files"),
    (r"client/python/", "python"),
    (r"client/", "client"),
]

# What the files of a folder may include; the longest folder that holds a file counts, or the file itself.
ALLOWED = {
    "kernels": "std dtype cuda hwy kernels",
    "server/base": "std absl base cli11 tcmalloc",
    "server/formats": "std absl json formats",
    "server/log": "std base spdlog log",
    "server/core": "std dtype absl log core",
    "server/gpu": "std absl log core gpu cuda",
    "server/memory": "std absl log core gpu memory cuda",
    "server/device": "std absl base log core gpu memory weights device kernels cuda",
    "server/regions": "std absl log core regions",
    # Of the kernels, the limits of an MLP.
    "server/weights": "std dtype absl base formats log core weights kernels openssl",
    "server/metrics": "std absl base log core metrics prometheus version",
    "server/batching": "std absl log core batching",
    "server/connections": "std absl base log connections",
    "server/transport": "std absl base log core batching connections transport grpc protobuf",
    "server/codec": "std absl base core batching codec grpc protobuf proto",
    "server/inference": "std absl log core batching regions codec inference grpc",
    "server/service": "std absl base log core batching regions codec inference transport service grpc protobuf proto version",
    "server": "std absl base log core gpu memory device regions weights metrics batching connections transport codec inference service server "
              "grpc protobuf proto version",
    "client": "std dtype absl grpc protobuf proto client files json version",
    # For the tests of programs that use the library.
    "client/include/swiglu/mock_connection.h": "std absl client gmock",
    # A format has one parser, which the server and the programs share.
    "client/files": "std dtype absl json formats client files",
    # Of the client, only itself: what results should be does not depend on how they came.
    "client/check": "std dtype absl client",
    "client/cuda": "std absl client cuda",
    # A binding of the library's public headers.
    "client/python": "std absl client python pybind11 version cuda",
    # The programs read their command lines as the server does. The library does not: it is installed without the server.
    "client/cli": "std dtype absl base client files json version",
    "client/bench": "std dtype absl base files grpc protobuf proto client json version cuda curl",
}

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def kind_of(root, included):
    """Returns what `included` is, or "unknown". The public headers, "swiglu/...", belong to the folder that holds them."""
    if included == "swiglu/dtype.h":
        return "dtype"
    if included.startswith("swiglu/"):
        for folder in ("kernels", "client"):
            if (root / folder / "include" / included).is_file():
                return folder
        return "unknown"
    for pattern, kind in KINDS:
        match = re.match(pattern, included)
        if match:
            return kind or match.group(1)
    return "unknown"


def rule_for(path):
    """Returns the folder whose rule holds for `path`, or the file itself if it has one of its own, or None."""
    folders = [str(parent) for parent in (path, *path.parents)]
    return next((folder for folder in folders if folder in ALLOWED), None)


def violations(root):
    """Returns a sentence for every include below `root` that is not allowed where it stands."""
    root = pathlib.Path(root)
    found = []
    for path in source_tree.cpp_files(root):
        folder = rule_for(path)
        if folder is None:
            continue
        for number, line in enumerate((root / path).read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            kind = kind_of(root, match.group(1))
            if kind not in ALLOWED[folder].split():
                found.append(f'{path}:{number}: {folder} may not include "{match.group(1)}" ({kind})')
    return found


if __name__ == "__main__":
    found = violations(sys.argv[1])
    print("\n".join(found))
    sys.exit(1 if found else 0)
