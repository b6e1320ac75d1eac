# SPDX-License-Identifier: Apache-2.0
#
# The committed lists of small bugs, read and checked. A list is a file *.toml beside this one, for an area of the code each, with
# entries like this one:
#
#   [[mutant]]
#   name = "the wait for the last batch is left out"     # what the bug is; no two have the same
#   file = "server/batching/batcher.cc"                  # below the source tree's root
#   old = '''  mutex_.Await(absl::Condition(&idle));'''  # occurs once in the file, to the letter
#   new = ''''''
#   tests = ["batching_test BatcherTest.*"]              # a test program, one with a filter, or "ctest:NAME"; the nearest first
#   equivalent = "why no test can notice it"             # only of a change that is no bug: it is not tried
import dataclasses
import pathlib
import tomllib

FOLDER = pathlib.Path(__file__).parent
FIELDS = {"name", "file", "old", "new", "tests", "equivalent"}


@dataclasses.dataclass
class Mutant:
    area: str  # the list that it is in, without .toml
    name: str  # what the bug is
    file: str  # below the source tree's root
    old: str
    new: str
    tests: list  # "PROGRAM", "PROGRAM FILTER" or "ctest:NAME"
    equivalent: str = ""  # why no test can notice it

    def __str__(self):
        return f"{self.area}: {self.name} ({self.file})"


def load(folder=FOLDER):
    """All mutants, in the order of the lists; ValueError if an entry is not as it must be."""
    mutants = []
    for path in sorted(pathlib.Path(folder).glob("*.toml")):
        for entry in tomllib.loads(path.read_text()).get("mutant", []):
            missing = FIELDS - {"equivalent"} - set(entry)
            unknown = set(entry) - FIELDS
            if missing or unknown:
                raise ValueError(f"{path.name}: {entry.get('name', 'an entry')}: missing {sorted(missing)}, unknown {sorted(unknown)}")
            mutants.append(Mutant(path.stem, **entry))
    return mutants


def faults(root, mutants):
    """What is wrong with the lists, as sentences."""
    found = []
    names = set()
    for mutant in mutants:
        if mutant.name in names:
            found.append(f"{mutant}: there is another one of that name")
        names.add(mutant.name)
        if mutant.old == mutant.new:
            found.append(f"{mutant}: old and new are the same")
        if not mutant.tests:
            found.append(f"{mutant}: it names no tests")
        path = pathlib.Path(root) / mutant.file
        if not path.is_file():
            found.append(f"{mutant}: there is no such file")
            continue
        count = path.read_text().count(mutant.old)
        if count != 1:
            found.append(f"{mutant}: the old text occurs {count} times; it must occur once:\n{mutant.old}")
    return found
