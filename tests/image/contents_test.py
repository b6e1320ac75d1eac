#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Looks into the image: how large it is, that it holds nothing to break in with, how it is configured, and that its bill of
# materials is valid SPDX and true. `contents_test.py COMMAND...` runs it by that command, which the engine is reached through.
import hashlib
import os
import pathlib
import re
import stat
import sys
import unittest

from spdx_tools.spdx.model import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

import engine_process
from engine_process import podman

# What engine.sh makes and the Dockerfile builds on; it has the package whose certificates the image is to have.
BASE = "docker.io/library/debian:bookworm-slim"
LARGEST_BYTES = 60_000_000
SBOM = "usr/share/doc/swiglu/sbom.spdx.json"
LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


def mozillas_certificates(root):
    """Returns those of the package ca-certificates in a file system, in the order of their names."""
    found = root.glob("usr/share/ca-certificates/mozilla/*.crt")
    return b"".join(path.read_bytes() for path in sorted(found, key=os.fsencode))


class ContentsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(podman("image", "mount", "swiglu").strip())
        cls.addClassCleanup(podman, "image", "unmount", "swiglu")
        cls.files = {str(path.relative_to(cls.root)): path for path in cls.root.rglob("*")
                     if path.is_file() and not path.is_symlink()}
        cls.image = engine_process.inspect("image", "swiglu")
        cls.config = cls.image["Config"]

    def test_it_is_small(self):
        size = sum(path.stat().st_size for path in self.files.values())
        print(f"{len(self.files)} files, {size} bytes unpacked, {self.image['Digest']}")
        self.assertLess(size, LARGEST_BYTES)

    def test_it_holds_two_programs_and_no_shell(self):
        programs = {name for name, path in self.files.items() if os.access(path, os.X_OK) and ".so" not in name}
        self.assertEqual(programs, {"opt/swiglu/bin/swiglu", "opt/swiglu/bin/swiglu-server"})

    def test_nobody_gains_rights_from_its_files(self):
        for path in [self.root, *self.root.rglob("*")]:
            about = path.lstat()
            self.assertEqual((about.st_uid, about.st_gid), (0, 0), path)
            if not path.is_symlink():
                self.assertFalse(about.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH), path)

    def test_it_runs_as_an_ordinary_user_with_a_name(self):
        self.assertEqual(self.config["User"], "65532:65532")
        self.assertIn("nonroot:x:65532:65532:", self.files["etc/passwd"].read_text())
        self.assertIn("nonroot:x:65532:", self.files["etc/group"].read_text())

    def test_it_serves_every_interface_and_says_its_health(self):
        self.assertEqual(self.config["Entrypoint"], ["/opt/swiglu/bin/swiglu-server"])
        self.assertEqual(self.config["Cmd"], ["--grpc_address=0.0.0.0:8001", "--metrics_address=0.0.0.0:8002"])
        self.assertEqual(set(self.config["ExposedPorts"]), {"8001/tcp", "8002/tcp"})
        self.assertEqual(self.image["Healthcheck"]["Test"], ["CMD", "/opt/swiglu/bin/swiglu-server", "--health"])

    def test_it_asks_for_gpus_and_finds_their_driver(self):
        environment = dict(entry.split("=", 1) for entry in self.config["Env"])
        self.assertEqual(environment["NVIDIA_VISIBLE_DEVICES"], "all")
        self.assertEqual(environment["NVIDIA_DRIVER_CAPABILITIES"], "compute,utility")
        folders = environment["LD_LIBRARY_PATH"].split(":")
        configured = self.files["etc/ld.so.conf"].read_text().split()
        self.assertLessEqual(set(folders), set(configured))

    def test_labels_say_what_it_is(self):
        labels = {name.removeprefix("org.opencontainers.image."): text for name, text in self.config["Labels"].items()}
        said = podman("run", "--rm", "swiglu", "--version")
        version, commit = re.match(r"swiglu-server (\S+) \(commit (\S+),", said).groups()
        self.assertEqual((labels["version"], labels["revision"]), (version, commit))
        self.assertEqual(labels["licenses"], "Apache-2.0")

    def test_certificates_are_those_of_the_package(self):
        base = pathlib.Path(podman("image", "mount", BASE).strip())
        self.addCleanup(podman, "image", "unmount", BASE)
        package = mozillas_certificates(base)
        bundle = self.files["etc/ssl/certs/ca-certificates.crt"].read_bytes()
        self.assertGreater(package.count(b"-----BEGIN CERTIFICATE-----"), 100)
        self.assertEqual(hashlib.sha256(bundle).hexdigest(), hashlib.sha256(package).hexdigest())

    def test_the_bill_of_materials_is_valid_and_true(self):
        document = parse_file(str(self.files[SBOM]))
        self.assertEqual([fault.validation_message for fault in validate_full_spdx_document(document)], [])

        listed = {file.name.removeprefix("./"): {checksum.algorithm.name: checksum.value for checksum in file.checksums}
                  for file in document.files}
        self.assertEqual(set(listed), set(self.files) - {SBOM})
        for name, checksums in listed.items():
            self.assertEqual(checksums["SHA256"], hashlib.sha256(self.files[name].read_bytes()).hexdigest(), name)

        packages = {package.spdx_id: package.name for package in document.packages}
        names = {file.spdx_id: file.name.removeprefix("./") for file in document.files}
        kinds = {RelationshipType.EXPANDED_FROM_ARCHIVE, RelationshipType.GENERATED_FROM}
        origins = {names[relation.spdx_element_id]: packages[relation.related_spdx_element_id]
                   for relation in document.relationships if relation.relationship_type in kinds}
        self.assertEqual(set(origins), set(listed))
        self.assertEqual(origins[LOADER], "libc6")
        (protobuf,) = (name for name in origins if name.startswith("opt/swiglu/lib/libprotobuf.so."))
        self.assertEqual(origins[protobuf], "libprotobuf32")
        self.assertEqual(origins["opt/swiglu/bin/swiglu-server"], "swiglu")
        for package in set(origins.values()) - {"swiglu"}:
            self.assertIn(f"usr/share/doc/{package}/copyright", self.files)


if __name__ == "__main__":
    # The packages above come from a registry, which the engine's own network does not reach: so python first, then the engine.
    if len(sys.argv) > 1:
        os.execv(sys.argv[1], [*sys.argv[1:], sys.executable, "-B", __file__])
    unittest.main()
