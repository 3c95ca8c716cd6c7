"""``make serve``: show the book on this machine only, and build it again when a source changes."""

import subprocess
import sys

from livereload import Server

SOURCES = ["_config.yml", "_toc.yml", "book/**/*", "helpers/*.py", "notebooks/*.ipynb"]
PORT = 8000


def build():
    """Run ``make book``; a failed build says so and the last good pages stay."""
    if subprocess.run(["make", "book"]).returncode:
        print("The book was not built; mend the page and save it again.", file=sys.stderr)


if __name__ == "__main__":
    build()
    server = Server()
    for pattern in SOURCES:
        server.watch(pattern, build)
    server.serve(root="_build/html", host="127.0.0.1", port=PORT)
