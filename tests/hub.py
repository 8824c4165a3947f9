"""As much of huggingface.co as its own client asks for, from folders of this machine."""
import base64
import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40
API = re.compile(r"api/((?:models|datasets)/[^/]+/[^/]+)(?:/(revision|tree|paths-info)/[^/]+/?(.*))?")
FILE = re.compile(r"(?:(datasets)/)?([^/]+/[^/]+)/resolve/[^/]+/(.*)")


class Hub(BaseHTTPRequestHandler):
    """`repositories`: {"models/owner/name" or "datasets/owner/name": folder}; "new": where repositories are made."""

    repositories: dict[str, Path]

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        body, path = self.rfile.read(int(self.headers["Content-Length"])).decode(), urlsplit(self.path).path
        take = next((take for way, take in TAKEN.items() if re.fullmatch(way, path)), None)
        if take is None:
            return self.answer(parse_qs(body)["paths"])
        if "Authorization" not in self.headers:
            return self.send(None, "GatedRepo")
        self.send(json.dumps(take(self.repositories, path, body)).encode(), "")

    def answer(self, paths: list[str] | None = None) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path).strip("/")
        if found := API.fullmatch(path):
            folder = self.repositories.get(found[1])
            content = folder and described(found[1], folder, found[2], found[3], paths, "recursive=true" in asked.query)
            return self.send(folder and json.dumps(content).encode(), "RepoNotFound")
        found = FILE.fullmatch(path)
        folder = found and self.repositories.get(f"{found[1] or 'models'}/{found[2]}")
        there = folder and (folder / found[3]).is_file()
        self.send((folder / found[3]).read_bytes() if there else None, "EntryNotFound" if folder else "RepoNotFound")

    def send(self, content: bytes | None, error: str) -> None:
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", error)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content or b"")

    def log_message(self, *args):
        pass


def create(repositories: dict[str, Path], path: str, body: str) -> dict:
    """A new repository; private.json beside its folder says whether it is private."""
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
    folder = repositories["new"] / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.with_suffix(".private.json").write_text(json.dumps(asked.get("private") or asked.get("visibility") == "private"))
    repositories[f"models/{name}"] = folder
    return {"url": f"https://huggingface.co/{name}"}


def commit(repositories: dict[str, Path], path: str, body: str) -> dict:
    """The files of one commit, as lines of JSON."""
    folder = repositories["/".join(path.split("/")[2:5])]
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
    return {"commitUrl": f"https://huggingface.co/{folder.parent.name}/{folder.name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}


def as_files(repositories: dict[str, Path], path: str, body: str) -> dict:
    """What a client must know before it sends: everything goes into the commit itself."""
    return {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]}


TAKEN = {
    "/api/repos/create": create,
    "/api/models/.+/preupload/main": as_files,
    "/api/models/.+/commit/main": commit,
    "/api/validate-yaml": lambda repositories, path, body: {"errors": [], "warnings": []},
}


def described(repository: str, folder: Path, what: str | None, inside: str, paths: list[str] | None, recursive: bool):
    """A repository, or its files and folders, as the Hub describes them."""
    below = sorted((folder / (inside or "")).rglob("*") if recursive or what != "tree" else (folder / inside).glob("*"))
    listed = [{"type": "file" if path.is_file() else "directory", "path": path.relative_to(folder).as_posix(),
               "size": path.stat().st_size, "oid": hashlib.sha1(str(path).encode()).hexdigest()} for path in below]
    if what == "tree":
        return listed
    if what == "paths-info":
        return [entry for entry in listed if entry["path"] in paths]
    return {"id": repository.split("/", 1)[1], "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [],
            "downloads": 0, "likes": 0, "siblings": [{"rfilename": entry["path"]} for entry in listed if entry["type"] == "file"]}


@contextmanager
def running_hub(repositories: dict[str, Path], home: Path):
    """The environment of a process that asks this Hub and keeps its cache in `home`; out of reach when the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {"repositories": repositories}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home),
               "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    finally:
        server.shutdown()
        server.server_close()
