#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Writes the bill of materials of the image whose files lie in ROOT into ROOT/usr/share/doc/swiglu/sbom.spdx.json, as SPDX
# 2.3, and below ROOT/usr/share/doc the licence of every package that has a file in it: sbom.py ROOT BUILD. Fails on a file
# whose origin it cannot tell. The same files give the same bytes; the time in it is SOURCE_DATE_EPOCH.
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

MULTIARCH = "usr/lib/x86_64-linux-gnu"
DOCUMENTATION = pathlib.Path("usr/share/doc")
SBOM = DOCUMENTATION / "swiglu/sbom.spdx.json"
SOURCE = pathlib.Path(__file__).resolve().parents[2]
UNKNOWN = {"downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION"}
IMAGE, SWIGLU, CUDA = ("SPDXRef-Package-" + name for name in ("image", "swiglu", "nvidia-cuda-runtime"))


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class DebianPackages:
    """The packages of the machine that builds, and which of them owns a file."""

    def __init__(self):
        fields = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"
        self.installed = {line.split("\t")[0]: line.split("\t")[1:] for line in run("dpkg-query", "-W", "-f", fields).splitlines()}
        self.owners = {}
        for listing in pathlib.Path("/var/lib/dpkg/info").glob("*.list"):
            for path in listing.read_text().splitlines():
                self.owners[self.with_usr(path)] = listing.stem.split(":")[0]

    @staticmethod
    def with_usr(path):
        """Packages name files of /usr/lib by /lib, which is a link to it."""
        return re.sub(r"^/(bin|lib|lib64|sbin)/", r"/usr/\1/", path)

    def owner(self, path):
        """Returns the name of the package that `path`, or what it points to, is from, or None."""
        return self.owners.get(self.with_usr(os.path.realpath(path)))

    def entry(self, name):
        """Returns the SPDX package of a name."""
        version, architecture, source, source_version = self.installed[name]
        quoted = urllib.parse.quote(version, safe="")
        purl = f"pkg:deb/debian/{urllib.parse.quote(name, safe='')}@{quoted}?arch={architecture}"
        return UNKNOWN | {
            "SPDXID": package_id(name),
            "name": name,
            "versionInfo": version,
            "supplier": "Organization: Debian",
            "sourceInfo": f"built from the source package {source} {source_version}",
            "filesAnalyzed": False,
            "licenseDeclared": "NOASSERTION",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
        }


def package_id(name):
    return "SPDXRef-Package-deb-" + re.sub(r"[^A-Za-z0-9.-]", lambda match: f"-{ord(match[0]):x}-", name)


def origin(root, path, debian):
    """Returns (relationship, package) that say where the file `path` of the image is from."""
    if path.parts[0] == "opt" and path.parts[2] == "bin" or path.parent == SBOM.parent:
        return "GENERATED_FROM", SWIGLU
    if path == pathlib.Path("etc/ssl/certs/ca-certificates.crt"):
        return "GENERATED_FROM", package_id("ca-certificates")
    if path.parts[0] == "etc":
        return "GENERATED_FROM", SWIGLU
    if path.parent.parent == DOCUMENTATION:
        return "EXPANDED_FROM_ARCHIVE", package_id(path.parent.name)
    installed = pathlib.Path("/", MULTIARCH, path.name)
    if not installed.is_file() or installed.read_bytes() != (root / path).read_bytes():
        sys.exit(f"sbom: /{path} is not the {installed} of this machine")
    owner = debian.owner(installed)
    if owner is None:
        sys.exit(f"sbom: no package owns {installed}")
    return "EXPANDED_FROM_ARCHIVE", package_id(owner)


def compiled_in(build, debian):
    """Returns the packages whose headers were compiled, by what ninja has recorded."""
    headers = set(re.findall(r"^ +(/\S+)$", run("ninja", "-C", str(build), "-t", "deps"), re.MULTILINE))
    return {owner for owner in map(debian.owner, headers) if owner}


def cuda_runtime(nvcc):
    """Returns the SPDX package of the CUDA runtime that lies beside a compiler."""
    pinned = nvcc.parents[1] / "requirements.txt"
    if pinned.is_file():
        version = re.search(r"^nvidia-cuda-runtime==(\S+)", pinned.read_text(), re.MULTILINE)[1]
    else:
        version = re.search(r"release ([0-9.]+)", run(nvcc, "--version"))[1]
    return UNKNOWN | {
        "SPDXID": CUDA,
        "name": "nvidia-cuda-runtime",
        "versionInfo": version,
        "supplier": "Organization: NVIDIA Corporation",
        "filesAnalyzed": False,
        "licenseDeclared": "NOASSERTION",
    }


def file_entry(root, path):
    content = (root / path).read_bytes()
    checksums = {name: hashlib.new(name, content).hexdigest() for name in ("sha1", "sha256")}
    return {
        "SPDXID": "SPDXRef-File-" + hashlib.sha1(str(path).encode()).hexdigest(),
        "fileName": f"./{path}",
        "checksums": [{"algorithm": name.upper(), "checksumValue": value} for name, value in checksums.items()],
        "licenseConcluded": "NOASSERTION",
        "licenseInfoInFiles": ["NOASSERTION"],
        "copyrightText": "NOASSERTION",
    }


def files_of(root):
    """Returns the image's regular files but the bill itself, sorted, relative to its root."""
    return sorted(path.relative_to(root) for path in root.rglob("*")
                  if path.is_file() and not path.is_symlink() and path != root / SBOM)


def document(root, build):
    debian = DebianPackages()
    cache = dict(re.findall(r"^(\w+):\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.MULTILINE))
    nvcc = cache.get("CMAKE_CUDA_COMPILER")
    version = cache["CMAKE_PROJECT_VERSION"]

    # The licences come first, for they are files of the image too.
    origins = {origin(root, path, debian)[1] for path in files_of(root)}
    shipped = {name for name in debian.installed if package_id(name) in origins}
    for name in shipped:
        (root / DOCUMENTATION / name).mkdir()
        shutil.copyfile(f"/{DOCUMENTATION}/{name}/copyright", root / DOCUMENTATION / name / "copyright")
    (root / SBOM).parent.mkdir()
    shutil.copyfile(SOURCE / "LICENSE", root / SBOM.parent / "LICENSE")

    built_with = compiled_in(build, debian) - shipped
    tools = {debian.owner(cache["CMAKE_CXX_COMPILER"])} - {None}
    files = {path: file_entry(root, path) for path in files_of(root)}
    sha1s = sorted(entry["checksums"][0]["checksumValue"] for entry in files.values())
    packages = [
        UNKNOWN | {
            "SPDXID": IMAGE,
            "name": "swiglu-image",
            "versionInfo": version,
            "primaryPackagePurpose": "CONTAINER",
            "filesAnalyzed": True,
            "licenseDeclared": "NOASSERTION",
            "packageVerificationCode": {
                "packageVerificationCodeValue": hashlib.sha1("".join(sha1s).encode()).hexdigest(),
                "packageVerificationCodeExcludedFiles": [f"./{SBOM}"],
            },
        },
        UNKNOWN | {
            "SPDXID": SWIGLU,
            "name": "swiglu",
            "versionInfo": version,
            "filesAnalyzed": False,
            "licenseDeclared": "Apache-2.0",
        },
    ] + [debian.entry(name) for name in sorted(shipped | built_with | tools)]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)]
    relations += [(IMAGE, "CONTAINS", entry["SPDXID"]) for entry in files.values()]
    relations += [(entry["SPDXID"], *origin(root, path, debian)) for path, entry in files.items()]
    relations += [(SWIGLU, "DEPENDS_ON", package_id(name)) for name in sorted(shipped)]
    relations += [(package_id(name), "BUILD_DEPENDENCY_OF", SWIGLU) for name in sorted(built_with)]
    relations += [(package_id(name), "BUILD_TOOL_OF", SWIGLU) for name in sorted(tools)]
    if nvcc:
        packages.append(cuda_runtime(pathlib.Path(nvcc)))
        relations.append((SWIGLU, "STATIC_LINK", CUDA))
    created = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), datetime.timezone.utc)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"swiglu-image-{version}",
        "creationInfo": {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: swiglu-sbom"]},
        "packages": packages,
        "files": list(files.values()),
        "relationships": [
            {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": other} for element, kind, other in relations
        ],
    }


def main(root, build):
    found = document(root, build)
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    found["documentNamespace"] = f"https://spdx.org/spdxdocs/{found['name']}-{digest}"
    (root / SBOM).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
