"""A hub of one machine: serves folders as repositories, as far as downloads need it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    root: Path
    gated: set[str]
    log: list[str]
    stop_after: dict[str, int]
    stalled: Event
    released: Event

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.log.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts)
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._refuse(404, "EntryNotFound")

    def _info(self, repository: str, parts: list[str]) -> None:
        folder = self.root / repository
        if not folder.is_dir():
            return self._refuse(404, "RepoNotFound")
        if parts[4:5] == ["revision"] and parts[5] not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        if parts[4:5] == ["tree"]:
            facts: object = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size,
                 "oid": hashlib.sha1(name.encode()).hexdigest()}
                for name in names
            ]  # fmt: skip
        else:
            facts = {"id": repository, "modelId": repository, "sha": COMMIT, "private": False,
                     "tags": [], "siblings": [{"rfilename": name} for name in names]}  # fmt: skip
        self._send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"}, True)

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        path = self.root / repository / name
        if repository in self.gated:
            return self._refuse(403, "GatedRepo")
        if not (self.root / repository).is_dir():
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        begin = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        start = int(begin or 0)
        self._send(206 if start else 200, content[start:], headers, body, self.stop_after.get(name))

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        body: bool,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:stop])
            if stop is not None:
                self.wfile.flush()
                self.stalled.set()
                self.released.wait(30)
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code}, False)


@contextmanager
def serving(root: Path, *, gated: tuple[str, ...] = ()) -> Iterator[tuple[str, type[_Handler]]]:
    """The hub's address, and its handler: `log` has the requests, a file of `stop_after` stalls."""
    facts = {"root": root, "gated": set(gated), "log": [], "stop_after": {}}
    facts |= {"stalled": Event(), "released": Event()}
    handler = type("Handler", (_Handler,), facts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
