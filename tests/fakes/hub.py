"""A hub on a real socket: the routes of Hugging Face's Hub that creating, uploading to and downloading from a model
repository use, with repositories in memory. LFS files come by their own upload, and are checked against their SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

TOKEN = "hf_local"
LARGE = (".safetensors",)


@dataclass
class FakeHub:
    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((name, sorted(one)) for name, one in self.files.items())).encode()).hexdigest()

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def authorised(request: Request, call_next: Any) -> Response:
            needs_token = not request.url.path.startswith("/objects/")
            if needs_token and request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"error": "Invalid credentials"}, 401)
            answer: Response = await call_next(request)
            return answer

        @app.post("/api/repos/create")
        async def create(request: Request) -> Response:
            body = await request.json()
            name = "/".join(filter(None, (body.get("organization"), body["name"])))
            if name in self.files:
                return JSONResponse({"error": "exists"}, 409)
            self.files[name], self.private[name] = {}, bool(body.get("private") or body.get("visibility") == "private")
            return JSONResponse({"url": f"{self.url}/{name}", "name": name, "id": name})

        @app.post("/api/validate-yaml")
        async def validate() -> dict[str, Any]:
            return {"errors": [], "warnings": []}

        @app.post("/api/models/{owner}/{name}/preupload/{revision}")
        async def preupload(owner: str, name: str, revision: str, request: Request) -> dict[str, Any]:
            paths = [one["path"] for one in (await request.json())["files"]]
            modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
            return {"files": [{"path": one, "uploadMode": mode, "shouldIgnore": False} for one, mode in modes.items()]}

        @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
        async def batch(owner: str, name: str, request: Request) -> dict[str, Any]:
            wanted = (await request.json())["objects"]
            return {
                "transfer": "basic",
                "objects": [
                    one | {"actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}", "header": {}}}}
                    for one in wanted
                ],
            }

        @app.put("/objects/{oid}")
        async def upload(oid: str, request: Request) -> Response:
            content = await request.body()
            if hashlib.sha256(content).hexdigest() != oid:
                return Response(status_code=400)
            self.objects[oid] = content
            return Response()

        @app.post("/api/models/{owner}/{name}/commit/{revision}")
        async def commit(owner: str, name: str, revision: str, request: Request) -> dict[str, Any]:
            repository = self.files[f"{owner}/{name}"]
            for line in (await request.body()).splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    repository[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    repository[entry["value"]["path"]] = self.objects[entry["value"]["oid"]]
            return {"commitUrl": f"{self.url}/{owner}/{name}/commit/{self.commit}", "commitOid": self.commit}

        @app.get("/api/models/{owner}/{name}")
        @app.get("/api/models/{owner}/{name}/revision/{revision}")
        async def info(owner: str, name: str, revision: str = "main") -> Response:
            if (repository := self.files.get(f"{owner}/{name}")) is None:
                return JSONResponse({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            siblings = [{"rfilename": path} for path in repository]
            return JSONResponse({"id": f"{owner}/{name}", "sha": self.commit, "siblings": siblings})

        @app.get("/api/models/{owner}/{name}/tree/{revision}")
        async def tree(owner: str, name: str, revision: str) -> list[dict[str, Any]]:
            repository = self.files[f"{owner}/{name}"]
            return [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in repository.items()
            ]

        @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        async def resolve(owner: str, name: str, revision: str, path: str) -> Response:
            content = self.files[f"{owner}/{name}"].get(path)
            if content is None:
                return JSONResponse({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": self.commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            return Response(content, headers=headers, media_type="application/octet-stream")

        return app


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """The hub at its URL until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hub = FakeHub(f"http://127.0.0.1:{port}")
    server = uvicorn.Server(uvicorn.Config(hub.app(), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join()
