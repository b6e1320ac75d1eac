#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What is in the Debian packages, and who owns it: `contents_test.py --version=VERSION PACKAGES` looks at those in that folder.
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

PACKAGES = pathlib.Path()
VERSION = ""


def dpkg_deb(*arguments):
    return subprocess.run(["dpkg-deb", *arguments], check=True, capture_output=True, text=True).stdout


class Package:
    """A package's fields and files by name, each file with its mode and owner as `tar` shows them."""

    def __init__(self, name):
        (self.path,) = PACKAGES.glob(f"{name}_*_amd64.deb")
        self.fields = dict(re.findall(r"^([\w-]+): (.*)$", dpkg_deb("--field", str(self.path)), re.MULTILINE))
        lines = [line.split(maxsplit=5) for line in dpkg_deb("--contents", str(self.path)).splitlines()]
        self.files = {fields[5].removeprefix("."): (fields[0], fields[1]) for fields in lines if not fields[5].endswith("/")}

    def below(self, folder):
        return {name.removeprefix(folder) for name in self.files if name.startswith(folder)}


class ContentsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.development = Package("swiglu-server"), Package("libswiglu-dev")

    def test_they_have_the_version_of_the_project(self):
        for package in (self.server, self.development):
            self.assertEqual(package.fields["Version"], VERSION)

    def test_the_server_needs_nothing_but_glibc(self):
        self.assertRegex(self.server.fields["Depends"], r"^libc6 \(>= [0-9.]+\)$")

    def test_libraries_stay_out_of_the_way_of_the_systems(self):
        libraries = {name for name in self.server.files if ".so" in name}
        self.assertGreater(len(libraries), 10)
        self.assertEqual({name for name in libraries if not name.startswith("/usr/lib/swiglu/lib/lib")}, set())

    def test_programs_are_on_the_path(self):
        self.assertEqual(self.server.below("/usr/bin/"),
                         {f"{name} -> ../lib/swiglu/bin/{name}" for name in ("swiglu", "swiglu-bench", "swiglu-server")})

    def test_settings_are_a_conffile(self):
        self.assertEqual(dpkg_deb("--info", str(self.server.path), "conffiles"), "/etc/swiglu/server.conf\n")
        self.assertEqual(self.server.below("/etc/"), {"swiglu/server.conf"})

    def test_the_unit_does_not_hide_gpus(self):
        with tempfile.TemporaryDirectory() as folder:
            dpkg_deb("--extract", str(self.server.path), folder)
            unit = pathlib.Path(folder, "usr/lib/systemd/system/swiglu-server.service").read_text()
        names = set(re.findall(r"^(\w+)=", unit, re.MULTILINE))
        self.assertIn("ProtectSystem", names)
        # ProtectClock implies a DeviceAllow, which denies all other devices.
        self.assertEqual(names & {"DeviceAllow", "DevicePolicy", "PrivateDevices", "ProcSubset", "ProtectClock"}, set())

    def test_everything_is_roots_and_nobody_else_writes(self):
        for package in (self.server, self.development):
            for name, (mode, owner) in package.files.items():
                self.assertEqual(owner, "root/root", name)
                if mode[0] != "l":
                    self.assertRegex(mode, "^-rw[x-]r-[x-]r-[x-]$", name)

    def test_each_package_has_its_licences(self):
        for package, name in ((self.server, "swiglu-server"), (self.development, "libswiglu-dev")):
            self.assertIn(f"/usr/share/doc/{name}/copyright", package.files)
        bundled = self.server.below("/usr/share/doc/swiglu-server/bundled/")
        self.assertTrue({"libhwy-dev/copyright", "zlib1g/copyright"} <= bundled, bundled)

    def test_the_libraries_need_what_they_were_compiled_with(self):
        self.assertRegex(self.development.fields["Depends"], r"libgrpc\+\+-dev \(>= [0-9.]+\), libgrpc\+\+-dev \(<< [0-9.]+~\)")

    def test_the_libraries_are_where_compilers_look(self):
        names = set(self.development.files)
        self.assertTrue({"/usr/include/swiglu/client.h", "/usr/lib/libswiglu_client.a",
                         "/usr/lib/pkgconfig/swiglu-client.pc", "/usr/lib/cmake/swiglu/swigluConfig.cmake"} <= names, names)
        self.assertEqual({name for name in names if "/bin/" in name or ".so" in name}, set())


if __name__ == "__main__":
    PACKAGES = pathlib.Path(sys.argv.pop())
    VERSION = sys.argv.pop().removeprefix("--version=")
    unittest.main()
