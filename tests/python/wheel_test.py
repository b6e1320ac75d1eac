#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Installs the wheel into the environment that the other tests of this folder run in, and checks that it stands on its own there:
# `wheel_test.py FOLDER`, the folder with the wheel in it.
import ast
import importlib.metadata
import inspect
import pathlib
import re
import subprocess
import sys
import unittest

FOLDER = pathlib.Path(sys.argv.pop(1))
OF_THE_MACHINE = re.compile(r"(ld-linux-x86-64|libanl|libc|libdl|libgcc_s|libm|libpthread|libresolv|librt|libstdc\+\+|libutil)\.so")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout


def setUpModule():
    [wheel] = FOLDER.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
                    "--force-reinstall", wheel], check=True)


class WheelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.distribution = importlib.metadata.distribution("swiglu-client")
        cls.paths = [pathlib.Path(cls.distribution.locate_file(path)).resolve() for path in cls.distribution.files]
        cls.root = pathlib.Path(cls.distribution.locate_file("")).resolve()
        [cls.module] = [path for path in cls.paths if path.name.startswith("_core.") and path.suffix == ".so"]
        cls.libraries = [path for path in cls.paths if path.parent.name == "swiglu_client.libs"]

    def test_needs_no_library_of_the_machine_but_glibc_and_the_compilers(self):
        self.assertGreater(len(self.libraries), 10)
        for path in [self.module, *self.libraries]:
            for line in run("/usr/bin/ldd", str(path)).splitlines():
                name, _, place = line.strip().partition(" => ")
                if place and not OF_THE_MACHINE.match(name):
                    self.assertEqual(pathlib.Path(place.split(" (")[0]).resolve().parent, self.root / "swiglu_client.libs", line)

    def test_library_has_a_name_of_its_own(self):
        for path in self.libraries:
            dynamic = run("/usr/bin/readelf", "--dynamic", "--wide", str(path))
            self.assertIn(f"Library soname: [{path.name}]", dynamic)
            self.assertRegex(path.name, r"-[0-9a-f]{8}\.so")
            self.assertRegex(dynamic, r"\(RUNPATH\) .*\[\$ORIGIN\]")

    def test_what_is_loaded_comes_out_of_the_wheel(self):
        code = "import swiglu; print(open('/proc/self/maps').read())"
        loaded = set(re.findall(r"/\S+", run(sys.executable, "-B", "-c", code)))
        names = {path.name.partition("-")[0] for path in self.libraries} - {"libz"}
        self.assertGreaterEqual(loaded, {str(path) for path in self.libraries})
        others = [path for path in loaded - {str(path) for path in self.libraries} if path.rpartition("/")[2].split(".so")[0] in names]
        self.assertEqual(others, [])

    def test_module_shows_nothing_but_what_python_calls(self):
        symbols = run("/usr/bin/nm", "--dynamic", "--defined-only", "--format=posix", str(self.module)).splitlines()
        self.assertEqual([line.split()[0] for line in symbols], ["PyInit__core"])

    def test_licences_of_what_is_bundled_come_with_it(self):
        licenses = {path.name: path.read_text(encoding="utf-8") for path in self.paths if path.parent.name == "licenses"}
        self.assertIn("Apache License", licenses["LICENSE"])
        for library, word in (("grpc", "Apache"), ("absl", "Apache"), ("protobuf", "Redistribution"), ("ssl", "OpenSSL")):
            self.assertTrue(any(library in name and word in text for name, text in licenses.items()), licenses.keys())

    def test_metadata_names_the_wheel(self):
        import swiglu
        self.assertEqual(self.distribution.version, swiglu.__version__)
        self.assertEqual([requirement for requirement in self.distribution.requires if "extra" not in requirement], ["numpy>=1.22"])
        tag = re.search("Tag: (.*)", self.distribution.read_text("WHEEL")).group(1)
        self.assertRegex(tag, rf"\Acp3{sys.version_info.minor}-cp3{sys.version_info.minor}-manylinux_2_\d+_x86_64\Z")


def parameters_of(function):
    """The names of a function's parameters, from the signature that pybind11 writes into its description."""
    signature = re.match(r"\w+\((.*)\) ->", function.__doc__).group(1)
    return re.findall(r"(?:^|, )(\w+)(?=[:,]|$)", re.sub(r"\[[^]]*\]|=('[^']*'|[^,]*)", "", signature))


class TypesTest(unittest.TestCase):
    """The file of types has what the module has."""

    @classmethod
    def setUpClass(cls):
        import swiglu._core
        cls.module = swiglu._core
        tree = ast.parse((pathlib.Path(swiglu.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
        cls.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        cls.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def assert_parameters(self, node, function):
        named = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
        self.assertEqual([name.replace("arg0", "self") for name in parameters_of(function)], named, node.name)

    def test_names_of_the_module(self):
        names = {name for name in vars(self.module) if not name.startswith("__")}
        self.assertEqual(names, set(self.classes) | set(self.functions))
        for name, node in self.functions.items():
            self.assert_parameters(node, getattr(self.module, name))

    def test_methods_and_their_parameters(self):
        for name, node in self.classes.items():
            methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)}
            found = {key: value for key, value in vars(getattr(self.module, name)).items()
                     if not key.startswith("__") and key != "_pybind11_conduit_v1_"}
            self.assertEqual(set(found), {key for key in methods if not key.startswith("__")}, name)
            for key, value in found.items():
                if isinstance(value, property):
                    self.assertTrue(any(isinstance(one, ast.Name) and one.id == "property" for one in methods[key].decorator_list))
                else:
                    self.assert_parameters(methods[key], value)

    def test_public_names(self):
        import swiglu
        public = {name for name, value in vars(swiglu).items() if not name.startswith("_") and not inspect.ismodule(value)}
        self.assertEqual(public, set(swiglu.__all__) - {"__version__"})
        self.assertTrue((pathlib.Path(swiglu.__file__).parent / "py.typed").is_file())


if __name__ == "__main__":
    unittest.main()
