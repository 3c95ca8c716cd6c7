"""``make serve``: show the book on this machine only, and build it again when a source changes."""

import os
import subprocess
import sys

from livereload import Server

SOURCES = ["_config.yml", "_toc.yml", "book/**/*", "helpers/*.py", "notebooks/*.ipynb",
           "homework/release/*", "tools/**/*"]
PORT = int(os.environ.get("PORT", 8000))  # make serve PORT=8001


def build():
    """Run ``make book``; a failed build says so, and the next change is built again."""
    if subprocess.run(["make", "book"]).returncode:
        print("The book was not built; mend the page and save it again.", file=sys.stderr)


if __name__ == "__main__":
    build()
    server = Server()
    for pattern in SOURCES:
        server.watch(pattern, build)
    try:
        server.serve(root="_build/html", host="127.0.0.1", port=PORT)
    except OSError as error:
        sys.exit(f"Port {PORT} can't be used ({error}); name another: make serve PORT=8001")
