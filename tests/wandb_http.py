"""The HTTP of the stand-in for W&B's server: who asks, for what, and whether the line is up."""

import base64
import gzip
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from wandb_server import StoredRun, WandbServer

IGNORED = "/sdk/otel/"  # the client's telemetry


class Handler(BaseHTTPRequestHandler):
    """Reads a request whole, then has the server answer it or gives up on it."""

    wandb: "WandbServer"
    protocol_version = "HTTP/1.1"  # keeps connections open, as the client expects

    def do_POST(self) -> None:
        self._respond(self._post)

    def do_PUT(self) -> None:
        self._respond(self._put)

    def do_GET(self) -> None:
        self._respond(self._get)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _respond(self, answer) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.wandb.connected:
            self.close_connection = True
            return
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        with self.wandb.lock:
            try:
                status, content = answer(unquote(self.path), body)
            except Exception as error:
                self.wandb.unknown.append(f"{self.command} {self.path}: {error!r} on {body[:2000]!r}")
                status, content = 400, b'{"errors": [{"message": "unknown"}]}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path.startswith(IGNORED):
            return 200, b""
        expected = "Basic " + base64.b64encode(f"api:{self.wandb.key}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            return 401, b'{"errors": [{"message": "permission denied"}]}'
        request = json.loads(body)
        if path.endswith("/file_stream"):
            self._stream(self.wandb.runs[path.split("/")[4]], request)
            return 200, b"{}"
        assert path == "/graphql"
        name = re.findall(r"\w+", request["query"])[1]  # after `query` or `mutation`
        operation = name[0].upper() + name[1:]  # wandb 0.28 asks for a nameless `viewer`
        self.wandb.operations.append(operation)
        variables = request.get("variables") or {}
        given = variables.get("input", variables)
        if operation == "UpsertBucket" and (status := self.wandb.refused.get(given["name"])):
            text = f"run {given['name']} was previously created and deleted; try a new run name"
            return status, json.dumps({"errors": [{"message": text}]}).encode()
        data = getattr(self.wandb, operation)(given)
        return 200, json.dumps({"data": data}).encode()

    def _stream(self, run: "StoredRun", request: dict) -> None:
        for name, part in request.get("files", {}).items():
            run.lines.setdefault(name, {}).update(enumerate(part["content"], start=part["offset"]))
        if request.get("complete"):
            run.exit_code = request["exitcode"]

    def _put(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.wandb.blobs[path.removeprefix("/blob/")] = body
        return 200, b""

    def _get(self, path: str, body: bytes) -> tuple[int, bytes]:
        content = self.wandb.blobs[path.removeprefix("/blob/")]
        return 200, content[::-1] if path.endswith(self.wandb.tampered) else content
