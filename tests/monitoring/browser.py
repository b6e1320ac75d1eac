# SPDX-License-Identifier: Apache-2.0
#
# A picture of a page, by the Chromium of this machine.
import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium")


def draw(url, picture, home):
    """Writes the page at `url` as a PNG to the path `picture`. Chromium, which must be there, keeps its own files below `home`."""
    picture.unlink(missing_ok=True)
    picture.parent.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--hide-scrollbars",
         f"--user-data-dir={home}/chromium", "--window-size=1200,1000", f"--screenshot={picture}", url],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(home)})
    if not picture.is_file():
        raise AssertionError(f"chromium drew nothing: {result.stderr}")
