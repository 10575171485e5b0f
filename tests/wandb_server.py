"""A stand-in for W&B's server on the loopback interface: it answers what the real client asks, and nothing else.

It tests the client's real online path, not the service's rules: there are no permissions and no quotas. What it
cannot answer goes into `unknown`, and whoever uses it asserts that this list is empty.
"""

import base64
import json
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import quote

from wandb_http import Handler

ENTITY = "reader"
DATE = "2026-01-01T00:00:00Z"
STREAMS = {"history": "wandb-history.jsonl", "events": "wandb-events.jsonl", "log": "output.log"}


@dataclass
class StoredRun:
    """A run: what the client said of it, and the lines it streamed, by file and number."""

    project: str
    entity: str = ENTITY
    job_type: str | None = None
    sweep: str | None = None
    commit: str | None = None
    config: dict = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    exit_code: int | None = None
    used: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    @property
    def history(self) -> list[dict]:
        return [json.loads(line) for _, line in sorted(self.lines.get(STREAMS["history"], {}).items())]

    @property
    def summary(self) -> dict:
        lines = self.lines.get("wandb-summary.json", {0: "{}"})
        return json.loads(lines[max(lines)])


@dataclass
class StoredArtifact:
    """A version of an artifact. It can be found once it is committed."""

    id: str
    project: str
    name: str
    type: str
    digest: str
    version: int
    metadata: str | None
    aliases: set[str]
    entity: str
    committed: bool = False

    def __str__(self) -> str:
        return f"{self.name}:v{self.version}"


class WandbServer:
    """Serves until it is stopped.

    Attributes:
        key: the key it accepts.
        connected: False closes every connection without an answer.
        refused: run ids that it answers with a status, such as 409 for a run that was deleted.
        tampered: the end of the names of files to alter as they are downloaded.
        operations: names of the GraphQL operations asked, in order.
        unknown: requests it could not answer.
        blobs: files uploaded: `run/<run>/<file>`, `artifact/<id>/<file>` and `manifest/<artifact id>`.
    """

    def __init__(self, key: str) -> None:
        self.key, self.connected, self.tampered = key, True, ("nothing",)
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.runs: dict[str, StoredRun] = {}
        self.refused: dict[str, int] = {}
        self.artifacts: list[StoredArtifact] = []
        self.blobs: dict[str, bytes] = {}
        self.lock = Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"wandb": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def find(self, label: str, *, place: tuple[str, str] | None = None) -> StoredArtifact | None:
        """Find a version by `name`, `name:vN` or `name:alias`, in one (entity, project); the last one counts where several fit."""
        name, _, alias = label.partition(":")
        versions = [artifact for artifact in self.artifacts if artifact.committed and artifact.name == name]
        versions = [version for version in versions if place in (None, (version.entity, version.project))]
        found = [a for a in versions if (alias or "latest") in {f"v{a.version}", *a.aliases}]
        return found[-1] if found else None

    def read_files(self, artifact: StoredArtifact) -> dict[str, bytes]:
        """Collect the files of a version by name; references have none."""
        prefix = f"artifact/{artifact.id}/"
        return {name.removeprefix(prefix): data for name, data in self.blobs.items() if name.startswith(prefix)}

    def read_manifest(self, artifact: StoredArtifact) -> dict[str, dict]:
        return json.loads(self.blobs[f"manifest/{artifact.id}"])["contents"]

    # What the GraphQL operations answer. Each method is called as its operation, with its variables.

    def Viewer(self, given: dict) -> dict:
        names = {"id": "user", "name": ENTITY, "username": ENTITY, "entity": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**names, "admin": False, "deletedAt": None, "teams": _list([]), "apiKeys": _list([])}}

    GetViewer = Viewer  # wandb 0.28

    def ServerFeaturesQuery(self, given: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def OrganizationCoreWeaveOrganizationID(self, given: dict) -> dict:
        return {"entity": {"organization": None}}

    def UpsertBucket(self, given: dict) -> dict:
        name, known = given["name"], given["name"] in self.runs
        run = self.runs.setdefault(name, StoredRun(given["project"], given.get("entity") or ENTITY))
        run.sweep = given.get("sweep") or run.sweep
        run.job_type, run.commit = given.get("jobType") or run.job_type, given.get("commit") or run.commit
        run.config |= json.loads(given.get("config") or "{}")
        return {"upsertBucket": {"bucket": self._bucket(name, run), "inserted": not known}}

    def RunResumeStatus(self, given: dict) -> dict:
        name = given["name"]
        found = self._bucket(name, self.runs[name]) if name in self.runs else None
        return {"model": _project(given["project"], given.get("entity") or ENTITY) | {"bucket": found}}

    def NotifyScriptableRunAlert(self, given: dict) -> dict:
        self.runs[given["runName"]].alerts.append(f"{given['severity']} {given['title']}: {given['text']}")
        return {"notifyScriptableRunAlert": {"success": True}}

    def CreateRunFiles(self, given: dict) -> dict:
        files = [{"name": name, "uploadUrl": self._url(f"run/{given['run']}/{name}")} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def CreateArtifact(self, given: dict) -> dict:
        name, aliases = given["artifactCollectionName"], {alias["alias"] for alias in given["aliases"]}
        versions = [artifact for artifact in self.artifacts if artifact.name == name]
        artifact = next((a for a in versions if a.committed and a.digest == given["digest"]), None)  # same content
        if artifact is None:
            kind, version, metadata = given["artifactTypeName"], len(versions), given["metadata"]
            place = (_id(len(self.artifacts)), given["projectName"])
            entity = given["entityName"]
            artifact = StoredArtifact(*place, name, kind, given["digest"], version, metadata, set(), entity)
            self.artifacts.append(artifact)
        for version in versions:  # an alias belongs to one version
            version.aliases -= aliases
        artifact.aliases |= aliases
        if given["runName"]:
            self.runs[given["runName"]].logged.append(str(artifact))
        state = "COMMITTED" if artifact.committed else "PENDING"
        found = {"id": artifact.id, "state": state, "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": found}}

    def CreateArtifactManifest(self, given: dict) -> dict:
        name = f"manifest/{given['artifactID']}"
        file = {"id": name, "uploadUrl": self._url(name), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def CreateArtifactFiles(self, given: dict) -> dict:
        files = given["artifactFiles"]
        nothing = {"storagePath": None, "uploadHeaders": [], "uploadMultipartUrls": None}
        urls = [self._url(f"artifact/{file['artifactID']}/{file['name']}") for file in files]
        answers = [
            {"uploadUrl": url, "artifact": {"id": file["artifactID"]}, **nothing}
            for file, url in zip(files, urls, strict=True)
        ]
        return {"createArtifactFiles": {"files": _list(answers)}}

    def CommitArtifact(self, given: dict) -> dict:
        artifact = self._by_id(given["artifactID"])
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def ArtifactType(self, given: dict) -> dict:
        found = self.find(given["name"])
        return {"project": {"artifact": found and {"artifactType": {"name": found.type}}}}

    def ArtifactByID(self, given: dict) -> dict:
        return {"artifact": self._artifact(self._by_id(given["id"]))}

    def ArtifactMembershipByName(self, given: dict) -> dict:
        found = self.find(given["name"], place=(given["entity"], given["project"]))
        return {"project": {"artifactCollectionMembership": found and self._membership(found)}}

    def UseArtifact(self, given: dict) -> dict:
        self.runs[given["runName"]].used.append(str(self._by_id(given["artifactID"])))
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def FetchArtifactManifest(self, given: dict) -> dict:
        return {"artifact": {"currentManifest": {"file": {"directUrl": self._url(f"manifest/{given['id']}")}}}}

    def GetArtifactMembershipFileUrls(self, given: dict) -> dict:
        found = self.find(f"{given['collection']}:{given['alias']}")
        assert found, f"{given} is no version here"
        names = self.read_files(found)
        files = [
            {"__typename": "File", "name": name, "directUrl": self._url(f"artifact/{found.id}/{name}")}
            for name in names
        ]
        membership = {"artifactMembership": {"files": _list(files)}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", **membership}}}

    def _by_id(self, number: str) -> StoredArtifact:
        return next(artifact for artifact in self.artifacts if artifact.id == number)

    def _url(self, name: str) -> str:
        return f"{self.url}/blob/{quote(name)}"

    def _bucket(self, name: str, run: StoredRun) -> dict:
        lines = {stream: list(run.lines.get(file, {}).values()) for stream, file in STREAMS.items()}
        counts = {f"{stream}LineCount": len(given) for stream, given in lines.items()}
        tails = {f"{stream}Tail": json.dumps(given[-1:]) for stream, given in lines.items()}
        told = {"config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary), "wandbConfig": '{"t": 1}'}
        names = {"id": name, "name": name, "displayName": name, "project": _project(run.project, run.entity)}
        return {**names, **told, **counts, **tails, "description": "", "notes": "", "sweepName": None, "tags": []}

    def _artifact(self, found: StoredArtifact) -> dict:
        collection = {
            "__typename": "ArtifactSequence",
            "name": found.name,
            "project": _project(found.project, found.entity),
        }
        aliases = [{"id": alias, "alias": alias, "artifactCollection": collection} for alias in sorted(found.aliases)]
        names = {"id": found.id, "versionIndex": found.version, "digest": found.digest, "aliases": aliases}
        kinds = {"artifactType": {"name": found.type}, "artifactSequence": collection, "metadata": found.metadata}
        rest = {"description": None, "tags": [], "historyStep": None, "commitHash": None, "ttlDurationSeconds": -2}
        dates = {"createdAt": DATE, "updatedAt": DATE, "ttlIsInherited": True, "state": "COMMITTED"}
        return {**names, **kinds, **rest, **dates, "size": 0, "fileCount": len(self.read_files(found))}

    def _membership(self, found: StoredArtifact) -> dict:
        artifact = self._artifact(found)
        names = {key: artifact[key] for key in ("id", "versionIndex", "createdAt", "aliases")}
        return {**names, "artifact": artifact, "artifactCollection": artifact["artifactSequence"]}


def _id(number: int) -> str:
    return base64.b64encode(f"Artifact:{number}".encode()).decode()  # wandb 0.28 decodes it


def _project(name: str, entity: str) -> dict:
    return {"id": name, "internalId": name, "name": name, "entity": {"id": entity, "name": entity}}


def _list(nodes: list) -> dict:
    page = {"endCursor": None, "hasNextPage": False}
    return {"edges": [{"node": node} for node in nodes], "pageInfo": page}
