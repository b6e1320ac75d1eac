# SPDX-License-Identifier: Apache-2.0
#
# Serves a metrics page that is only a text, as the page of a server that this machine may not have: one with a GPU. Who waits
# for its scrapes has a clock that beats when Prometheus scrapes.
import http.server
import threading

DEADLINE_S = 60


class ExamplePage:
    """A metrics page that never changes. As a context manager it ends with the block."""

    def __init__(self, text):
        page = text.encode()
        self._scrapes = 0
        self._changed = threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
                outer._count()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def wait_for_scrapes(self, count):
        """Returns after that many scrapes from now on."""
        with self._changed:
            end = self._scrapes + count
            if not self._changed.wait_for(lambda: self._scrapes >= end, DEADLINE_S):
                raise AssertionError(f"Prometheus did not scrape {count} times in {DEADLINE_S} s")

    def _count(self):
        with self._changed:
            self._scrapes += 1
            self._changed.notify_all()
