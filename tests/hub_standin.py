"""A small stand-in of a model hub on loopback, speaking as much of its protocol as the real client asks for."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """One repository: commits by name of the branch or tag, files by commit, and how it misbehaves."""

    files: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    fault: str = ""
    bad_file: str = "model.safetensors"

    def commit(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.files else None)


@dataclass
class StandIn:
    """The running server: its repositories, its address, and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    url: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    stopped: Event = field(default_factory=Event)

    def add(self, name: str, folder: Path, fault: str = "", **kept) -> Repo:
        """Serves a folder as ``name``, at one commit that ``main`` points to."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        commit = hashlib.sha1(name.encode()).hexdigest()
        self.repos[name] = Repo({commit: files}, {"main": commit, "v1.0": commit}, fault, **kept)
        return self.repos[name]

    def paths(self, method: str = "") -> list[str]:
        return [path for asked, path, _ in self.asked if asked.startswith(method)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_args):
        pass

    def _answer(self, body):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, dict(self.headers)))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 6:
            return self._describe("/".join(parts[2:4]), "/".join(parts[5:]))
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        return self._refuse(404, "EntryNotFound")

    def _describe(self, name, revision):
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._refuse(404, "RepoNotFound")
        if repo.fault == "private":
            return self._refuse(401, "RepoNotFound", "Invalid username or password.")
        if repo.fault == "private without a code":
            return self._refuse(401, None, "Invalid username or password.")
        if repo.fault in ("forbidden", "down"):
            return self._refuse({"forbidden": 403, "down": 500}[repo.fault], None)
        if repo.fault == "mute":
            self.hub.stopped.wait(20)
            return None
        commit = repo.commit(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        siblings = []
        for file, content in repo.files[commit].items():
            sibling = {"rfilename": file, "size": len(content)}
            if file.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return self._send(json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode(), {}, body=True)

    def _file(self, name, commit, file, body):
        repo = self.hub.repos[name]
        content = repo.files[commit].get(file)
        bad = file == repo.bad_file
        if repo.fault == "gated":
            return self._refuse(403, "GatedRepo", "Access to this model is restricted.")
        if content is None or (repo.fault == "vanished" and bad):
            return self._refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not (body and bad):
            return self._send(content, headers, body)
        if repo.fault == "stalls":
            return self._stall(content, headers)
        if repo.fault == "closes early":
            return self._close_early(content, headers)
        if repo.fault == "shorter":
            content = content[:-100]
        if repo.fault == "altered":
            content = bytes(byte ^ 1 for byte in content[:16]) + content[16:]
        return self._send(content, headers, body)

    def _stall(self, content, headers):
        self._start(len(content), headers)
        self.wfile.write(content[:10])
        self.hub.stopped.wait(20)
        self.close_connection = True

    def _close_early(self, content, headers):
        self._start(len(content), headers)
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def _send(self, content, headers, body):
        self._start(len(content), headers)
        if body:
            self.wfile.write(content)

    def _start(self, length, headers):
        self.send_response(200)
        for key, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def _refuse(self, status, code, message="no"):
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()


@contextmanager
def running_hub():
    """A stand-in that runs while the block does."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        server.shutdown()
        server.server_close()
