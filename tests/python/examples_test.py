#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the examples of the Python client: the scripts, and the cells of the notebook.
import json
import os

from client_fixture import ROOT, ClientTest, run_script
import server_process

EXAMPLES = ROOT / "client/python/examples"


class ExamplesTest(ClientTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def test_every_example_has_a_test(self):
        self.assertEqual(sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()),
                         ["many_calls.py", "on_gpu.py", "quick_start.py", "shared_memory.py", "swiglu.ipynb", "train.py"])

    def test_quick_start(self):
        self.assertEqual(run_script(EXAMPLES / "quick_start.py", self.server.address), (
            0, "gradients: (4, 1000) (4, 1000)\nINVALID_ARGUMENT - shape of 'g' is [1,1000]; 'e' has [4,1000]\n", ""))

    def test_many_calls(self):
        self.assertEqual(run_script(EXAMPLES / "many_calls.py", self.server.address), (0, "64 results are the same in every form\n", ""))

    def test_shared_memory(self):
        self.assertEqual(run_script(EXAMPLES / "shared_memory.py", self.server.address), (0, "1024000 elements are right\n", ""))

    def test_notebook(self):
        notebook = json.loads((EXAMPLES / "swiglu.ipynb").read_text(encoding="utf-8"))
        self.assertEqual(notebook["nbformat"], 4)
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        self.assertGreater(len(cells), 5)
        os.environ["SWIGLU_ADDRESS"] = self.server.address
        self.addCleanup(os.environ.pop, "SWIGLU_ADDRESS")
        names = {}
        for number, cell in enumerate(cells):
            # What a run leaves behind is not kept.
            self.assertEqual((cell["outputs"], cell["execution_count"]), ([], None))
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)


if __name__ == "__main__":
    server_process.main()
