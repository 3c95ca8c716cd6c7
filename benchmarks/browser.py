"""What a page weighs, and when a browser first paints it.

The pages come from a server on this machine that compresses text as servers do (gzip) and lets
the browser keep files. Every visit has a browser profile of its own, without any cache. Nothing
else can be reached: what a page wants from another host is counted, and not answered.
"""

import contextlib
import gzip
import http.server
import mimetypes
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.chromium import chromium

NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
COMPRESSED = ("text/", "application/javascript", "application/json", "image/svg+xml")
PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and adds up the bytes of what it sends."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent, self.bodies = folder.resolve(), 0, {}
        self.address = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """A tab that was closed before it had everything is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def body(self, path: str) -> tuple[bytes, str, bool] | None:
        """What is sent for a path, its type, and whether it is compressed; None: not there."""
        file = (self.folder / unquote(path).lstrip("/")).resolve()
        if not file.is_relative_to(self.folder) or not file.is_file():
            return None
        if file not in self.bodies:
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            small = kind.startswith(COMPRESSED)
            content = file.read_bytes()
            self.bodies[file] = (gzip.compress(content, 6) if small else content), kind, small
        return self.bodies[file]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = self.server.body(urlsplit(self.path).path)
        body, kind, small = found or (b"not there", "text/plain", False)
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        if small:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)
        self.server.sent += len(body) if found else 0

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def weigh(browser, server: Server, page: str, other: str) -> dict:
    """Bytes of a first visit, bytes after a visit to another page, requests to other hosts."""
    elsewhere = []
    with _tab(browser, server, elsewhere) as tab:
        first = _bytes(tab, server, page)
    with _tab(browser, server, []) as tab:
        _bytes(tab, server, other)
        after = _bytes(tab, server, page)
    return {"first": first, "next": after, "elsewhere": dict(Counter(elsewhere))}


def paint(browser, server: Server, page: str) -> float:
    """Milliseconds from the start of a first visit until the first text or picture is there."""
    with _tab(browser, server, []) as tab:
        _open(tab, server, page)
        tab.wait_for_function(PAINT)
        return round(tab.evaluate(PAINT), 1)


@contextlib.contextmanager
def _tab(browser, server: Server, elsewhere: list) -> Iterator:
    """A tab of a new profile; hosts that its page asks for come into the list."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()

    def note(request):
        parts = urlsplit(request.url)
        if parts.scheme.startswith("http") and not request.url.startswith(server.address):
            elsewhere.append(parts.hostname)

    tab.on("request", note)
    try:
        yield tab
    finally:
        context.close()


def _open(tab, server: Server, page: str) -> None:
    answer = tab.goto(server.address + page)
    if not answer or answer.status != 200:
        raise RuntimeError(f"{page}: the browser got {answer and answer.status}")


def _bytes(tab, server: Server, page: str) -> int:
    before = server.sent
    _open(tab, server, page)
    tab.wait_for_load_state("networkidle")
    return server.sent - before


def visit(
    books: dict[str, tuple[Path, Sequence[str]]], runs: int,
    opened: Callable[[str], contextlib.AbstractContextManager] = chromium,
) -> dict:
    """Weights and paints of {book: (folder with HTML, its pages)}, loads taken in turn.

    Returns {"absent": why} where there is no browser.
    """
    try:
        with opened(NO_OTHER_HOST) as browser, contextlib.ExitStack() as stack:
            servers = {
                book: stack.enter_context(serving(html)) for book, (html, _) in books.items()
            }
            found = {
                book: {
                    page: weigh(browser, servers[book], page, pages[1 if page == pages[0] else 0])
                    | {"paint": []}
                    for page in pages
                }
                for book, (_, pages) in books.items()
            }
            for _ in range(runs):
                for book, pages in found.items():
                    for page, measured in pages.items():
                        measured["paint"].append(paint(browser, servers[book], page))
            return {"browser": f"Chromium {browser.version}", "books": found}
    except LookupError as reason:
        return {"absent": str(reason)}
