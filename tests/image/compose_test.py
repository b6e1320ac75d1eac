#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Checks deploy/compose.yaml: against Compose's own schema, that what it mounts and names is there, and that its services are
# confined; compose_up_test.py starts it. compose_test.py ROOT SERVER
import copy
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
import unittest

import fastjsonschema
import yaml

ROOT, SERVER = pathlib.Path(), ""


def schema_check():
    """Returns a function that raises JsonSchemaException for a Compose file that Compose would refuse."""
    listed = importlib.metadata.files("docker-compose")
    path = next(file for file in listed if file.name == "compose_spec.json")
    schema = json.loads(path.locate().read_text())
    # It names a draft that the validator takes for the one before, and formats of its own.
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    formats = dict.fromkeys(["duration", "expose", "ports", "subnet_ip_address"], lambda text: True)
    return fastjsonschema.compile(schema, formats=formats)


class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.path = ROOT / "deploy/compose.yaml"
        cls.file = yaml.safe_load(cls.path.read_text())
        cls.services = cls.file["services"]

    def test_it_is_a_compose_file(self):
        check = schema_check()
        # The schema is older than `name`.
        self.assertEqual(self.file.pop("name"), "swiglu")
        check(self.file)
        for wrong in ("comand", "privilegd"):
            broken = copy.deepcopy(self.file)
            broken["services"]["prometheus"][wrong] = True
            with self.assertRaises(fastjsonschema.JsonSchemaException):
                check(broken)

    def test_every_mounted_path_is_in_the_repository(self):
        mounts = [volume.split(":") for service in self.services.values() for volume in service.get("volumes", ())]
        folders = [mount for mount in mounts if mount[0].startswith(".")]
        self.assertEqual(len(folders), 4)
        for source, _, mode in folders:
            self.assertTrue((self.path.parent / source).is_dir(), source)
            self.assertEqual(mode, "ro")
        self.assertEqual({mount[0] for mount in mounts if mount not in folders}, set(self.file["volumes"]))
        self.assertTrue((self.path.parent / self.services["server-cpu"]["build"]["context"] / "Dockerfile").is_file())

    def test_every_file_that_a_command_names_is_mounted(self):
        named = [argument.split("=")[1] for argument in self.services["prometheus"]["command"] if "=/etc/" in argument]
        named.append(self.services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
        mounts = dict(reversed(volume.split(":")[:2]) for name in ("prometheus", "grafana")
                      for volume in self.services[name]["volumes"])
        for path in named:
            source = next(mounts[folder] + path.removeprefix(folder) for folder in mounts if path.startswith(folder + "/"))
            self.assertTrue((self.path.parent / source).exists(), source)

    def test_prometheus_scrapes_the_server_and_grafana_asks_prometheus(self):
        scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        targets = [target for job in scraped["scrape_configs"] for config in job["static_configs"]
                   for target in config["targets"]]
        self.assertEqual(targets, ["server:8002"])
        sources = [source for path in (ROOT / "deploy/grafana/provisioning/datasources").glob("*.y*ml")
                   for source in yaml.safe_load(path.read_text())["datasources"]]
        self.assertEqual([source["url"] for source in sources], ["http://prometheus:9090"])

    def test_one_server_for_each_profile_answers_to_one_name(self):
        profiles = ("gpu", "cpu", "gpu-shared", "cpu-shared")
        servers = {profile: [name for name, service in self.services.items()
                             if profile in service.get("profiles", ()) and "build" in service] for profile in profiles}
        self.assertEqual(servers, {profile: [f"server-{profile}"] for profile in profiles})
        for profile, (name,) in servers.items():
            self.assertEqual(self.services[name]["networks"]["default"]["aliases"], ["server"])
            flags = dict(flag.split("=") for flag in self.services[name]["command"])
            self.assertEqual((flags["--grpc_address"], flags["--metrics_address"]), ("0.0.0.0:8001", "0.0.0.0:8002"))
            self.assertEqual(flags["--device"], "cuda" if profile.startswith("gpu") else "cpu")
            subprocess.run([SERVER, *self.services[name]["command"], "--version"], check=True, stdout=subprocess.DEVNULL)
            built = re.search(r"^docker build -t (\S+) \.$", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
            self.assertEqual(self.services[name]["image"], f"${{SWIGLU_IMAGE:-{built}}}")
        for name in ("server-gpu", "server-gpu-shared"):
            (gpus,) = self.services[name]["deploy"]["resources"]["reservations"]["devices"]
            self.assertEqual(gpus, {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]})

    def test_only_the_profiles_for_shared_memory_share_it(self):
        seen = {name: (service.get("ipc"), service.get("pid"), service.get("user"),
                       [flag for flag in service["command"] if "shared_memory" in flag])
                for name, service in self.services.items() if name.startswith("server-")}
        user, system, cuda = "${SWIGLU_USER:-65532:65532}", "--system_shared_memory=on", "--cuda_shared_memory=on"
        self.assertEqual(seen, {"server-gpu": (None, None, None, []), "server-cpu": (None, None, None, []),
                                "server-gpu-shared": ("host", "host", user, [system, cuda]),
                                "server-cpu-shared": ("host", None, user, [system])})

    def test_every_stop_leaves_time_for_the_drain(self):
        usage = subprocess.run([SERVER, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
        drain = int(re.search(r"--drain_timeout=(\d+)s\n", usage)[1])
        told = re.findall(r"^docker stop --time (\d+) swiglu$", (ROOT / "README.md").read_text(), re.MULTILINE)
        told += [re.fullmatch(r"(\d+)s", service["stop_grace_period"])[1] for name, service in self.services.items()
                 if name.startswith("server-")]
        self.assertEqual([int(seconds) > drain for seconds in told], [True] * 5)

    def test_every_service_is_confined(self):
        for name, service in self.services.items():
            self.assertTrue(service["read_only"], name)
            # The server and Prometheus write to nothing but their volumes.
            self.assertEqual(service.get("tmpfs", []), ["/tmp"] if name == "grafana" else [], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            for port in service.get("ports", ()):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")


if __name__ == "__main__":
    SERVER = sys.argv.pop()
    ROOT = pathlib.Path(sys.argv.pop())
    unittest.main()
