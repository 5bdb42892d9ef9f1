"""Fetching models with the real client of the Hugging Face Hub, from a server that answers as the hub does.

The client reads its environment once, at import, so every test runs it in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from npformer.assets import sample_pictures
from npformer.image import EfficientFormerImageProcessor, ViTImageProcessor
from npformer.models.auto import AutoImageProcessor, AutoModelForImageClassification
from tests import tiny

HAS_CLIENT = importlib.util.find_spec("huggingface_hub") is not None
needs_client = pytest.mark.skipif(
    not HAS_CLIENT or not hasattr(os, "fork"), reason="needs huggingface_hub, the hub's client, and os.fork"
)

REPO = "somebody/some-model"
MODEL_FILES = {"config.json": b'{"a": 1}', "preprocessor_config.json": b"{}", "model.safetensors": b"weights" * 5000}
# What a training run leaves in a repository, and what must not be fetched.
OTHER_FILES = {
    "README.md": b"# A model", "modeling.py": b"raise SystemExit", "training_args.bin": b"a pickle",
    "optimizer.pt": b"a pickle", "onnx/model.onnx": b"another format", "flax_model.msgpack": b"another format",
}  # fmt: skip


# --- the hub -------------------------------------------------------------------------------------------------------


@dataclass
class Repository:
    """Its commits, from hash to files, and what its branches and tags stand for."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    token: str | None = None  # whom the owner lets in


@dataclass
class Hub:
    """The state of a pretended hub: what it has, what it was asked, and how it misbehaves."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    breaks_after: dict[str, int] = field(default_factory=dict)  # file: bytes before the connection is cut
    answers: int | None = None  # to everything
    url: str = ""
    storage_url: str = ""  # where large files lie, a host of its own

    def add(self, files: Mapping[str, bytes], repo: str = REPO, revision: str = "main", **options: Any) -> str:
        """A commit of these files, as that branch or tag."""
        listing = json.dumps({name: hashlib.sha1(content).hexdigest() for name, content in files.items()})
        commit = hashlib.sha1(listing.encode()).hexdigest()
        repository = self.repositories.setdefault(repo, Repository({}, {}))
        repository.commits[commit] = dict(files)
        repository.refs[revision] = commit
        vars(repository).update(options)
        return commit

    def asked_for(self, method: str) -> list[str]:
        """The names of the files that were asked for, in order, each once."""
        found = [
            path.rsplit("/", 1)[-1] for kind, path in (line.split(" ", 1) for line in self.requests) if kind == method
        ]
        return list(dict.fromkeys(found))


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of /owner/name/resolve/revision/file, and of /large/..., where large files lie."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        self.hub.requests.append(f"{self.command} {unquote(self.path)}")
        if self.hub.answers is not None:
            return self.refuse(self.hub.answers, "", "")
        if large := re.fullmatch(r"/large/([\w.-]+/[\w.-]+)/(\w{40})/(.+)", unquote(self.path)):
            repo, commit, name = large.groups()
            if self.headers.get("Authorization"):
                return self.refuse(400, "", "tokens are none of this host's business")
            return self.send(name, self.hub.repositories[repo].commits[commit][name])
        match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self.refuse(404, "", "there is no such page")
        repo, revision, name = map(unquote, match.groups())
        self.resolve(repo, revision, name)

    def resolve(self, repo: str, revision: str, name: str) -> None:
        repository = self.hub.repositories.get(repo)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token == "expired":
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None:  # strangers are not told which repositories there are
            return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and token != repository.token:
            return self.refuse(403 if token else 401, "GatedRepo", f"Access to model {repo} is restricted.\nAsk.")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if name not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found", commit)
        if len(files[name]) < 1000:
            return self.send(name, files[name], commit)
        self.send_response(302)  # a large file: who wants it is sent on
        self.send_header("Location", f"{self.hub.storage_url}/large/{repo}/{commit}/{name}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Size", str(len(files[name])))
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(files[name]).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, name: str, content: bytes, commit: str | None = None) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET" and name in self.hub.breaks_after:
            self.wfile.write(content[start : self.hub.breaks_after[name]])
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(content[start:])

    def refuse(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        self.send_response(status)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message.replace("\n", " "))
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()
    handler = type("Handler", (Handler,), {"hub": state})
    with serving(handler) as state.url, serving(handler) as state.storage_url:
        yield state


@contextlib.contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """Answer on a port of our own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


# --- the client ------------------------------------------------------------------------------------------------------

# The client reads its environment when it is imported, so every call wants a new process. Each is forked from one that
# has imported all else, which takes a third of the time. The client waits for half a minute, in growing steps, before
# it gives the network up; here the steps are short.
FORKING = """
import json, os, sys, time, traceback
import asyncio, filelock, http.client, ssl, tqdm.auto, urllib.request, yaml  # what the client imports, too
from npformer.checkpoint.hub import download
sleep, time.sleep = time.sleep, lambda seconds: sleep(min(seconds, 0.01))
for line in sys.stdin:
    environment, calls = json.loads(line)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print(json.dumps(["end", os.waitstatus_to_exitcode(status)]), flush=True)
        continue
    try:
        os.environ.clear()
        os.environ.update(environment)
        for call in calls:
            try:
                answer = ["directory", str(download(**call))]
            except Exception as error:
                answer = [type(error).__name__, str(error)]
            print(json.dumps(answer), flush=True)
        os._exit(0)
    except BaseException:
        print(json.dumps(["failed", traceback.format_exc()]), flush=True)
        os._exit(1)
"""


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    """A process that runs `download` in children of its own: lines of an environment and calls in, answers out."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass
class Client:
    """Runs `download` in a process of its own."""

    home: Path
    hub: Hub
    forking: subprocess.Popen[str]

    def environment(self, **more: str) -> dict[str, str]:
        """Ours, but for what steers the client and its way to the network."""
        steering = ("HF_", "HUGGING", "XDG_CACHE", "TRANSFORMERS_")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(steering) and not name.lower().endswith("_proxy")
        }
        return {
            **kept, "PYTHONPATH": PYTHONPATH, "HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "error", **more,
        }  # fmt: skip

    def calls(self, *calls: dict[str, Any], **environment: str) -> list[tuple[str, str]]:
        """What each call ended in: "directory" and the path, or an error's name and text."""
        assert self.forking.stdin is not None
        assert self.forking.stdout is not None
        self.forking.stdin.write(json.dumps([self.environment(**environment), calls]) + "\n")
        self.forking.stdin.flush()
        answers = []
        for line in self.forking.stdout:
            kind, text = json.loads(line)
            if kind == "end":
                assert text == 0, answers
                return answers
            answers.append((kind, text))
        raise AssertionError("the forking process ended")

    def directory(self, repo: str = REPO, environment: Mapping[str, str] | None = None, **options: Any) -> Path:
        """Where a call that succeeds puts the files."""
        [(kind, text)] = self.calls({"repo_id": repo, **options}, **(environment or {}))
        assert kind == "directory", text
        assert Path(text).is_relative_to(self.home)
        return Path(text)

    def error(self, repo: str = REPO, environment: Mapping[str, str] | None = None, **options: Any) -> tuple[str, str]:
        """The kind and the sentence of a call that fails."""
        [(kind, text)] = self.calls({"repo_id": repo, **options}, **(environment or {}))
        assert kind != "directory", f"fetched {text}"
        assert "\n" not in text
        assert "Traceback" not in text
        return kind, text


@pytest.fixture
def client(hub: Hub, forking: subprocess.Popen[str], tmp_path: Path) -> Client:
    return Client(tmp_path / "home", hub, forking)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*"))}


# --- fetching --------------------------------------------------------------------------------------------------------


@needs_client
def test_only_the_models_own_files_are_fetched_and_only_once(hub: Hub, client: Client) -> None:
    commit = hub.add({**MODEL_FILES, "pytorch_model.bin": b"the same weights", "tf_model.h5": b"too", **OTHER_FILES})
    directory = client.directory()
    assert contents(directory) == MODEL_FILES
    assert directory.name == commit
    assert hub.asked_for("GET") == list(MODEL_FILES)

    hub.requests.clear()
    assert client.directory() == directory
    assert hub.requests == [f"HEAD /{REPO}/resolve/main/config.json"]  # whether there is a newer commit


@needs_client
def test_the_cache_answers_without_network_and_offline(hub: Hub, client: Client, nowhere: str) -> None:
    hub.add(MODEL_FILES)
    directory = client.directory()
    hub.requests.clear()
    assert client.directory(environment={"HF_HUB_OFFLINE": "1"}) == directory
    assert hub.requests == []
    assert client.directory(environment={"HF_ENDPOINT": f"http://{nowhere}"}) == directory
    assert contents(directory) == MODEL_FILES


@needs_client
@pytest.mark.parametrize("offline", [True, False])
def test_what_a_repository_lacks_is_remembered(offline: bool, hub: Hub, client: Client, nowhere: str) -> None:
    environment = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": f"http://{nowhere}"}
    files = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    hub.add(files)
    directory = client.directory()
    hub.requests.clear()
    assert client.directory(environment=environment) == directory
    assert client.directory() == directory
    assert hub.asked_for("HEAD") == ["config.json"]
    assert contents(directory) == files


@needs_client
def test_settings_alone(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    directory = client.directory(weights=False)
    assert sorted(contents(directory)) == ["config.json", "preprocessor_config.json"]
    assert "model.safetensors" not in " ".join(hub.requests)
    assert client.directory() == directory
    assert contents(directory) == MODEL_FILES


@needs_client
def test_revisions(hub: Hub, client: Client) -> None:
    old = hub.add({**MODEL_FILES, "config.json": b'{"a": 0}'}, revision="v1.0")
    new = hub.add(MODEL_FILES)
    pull = hub.add({**MODEL_FILES, "config.json": b'{"a": 2}'}, revision="refs/pr/5")
    names = [None, "v1.0", "refs/pr/5", old]
    results = client.calls(*({"repo_id": REPO, "revision": name} for name in names))
    assert [Path(text).name for _, text in results] == [new, old, pull, old]
    assert json.loads((Path(results[1][1]) / "config.json").read_text()) == {"a": 0}
    large = [line for line in hub.requests if line.startswith("GET /large")]
    assert len(large) == 1  # the weights are the same everywhere, and kept once

    hub.requests.clear()
    assert client.directory(revision=old).name == old
    assert hub.requests == []  # a commit never changes
    assert client.directory(revision="refs/pr/5", environment={"HF_HUB_OFFLINE": "1"}).name == pull


@needs_client
def test_a_newer_commit_is_noticed_and_not_mixed_with_the_older(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    older = client.directory()
    newer_files = {"config.json": b'{"a": 3}', "model.safetensors": b"better" * 5000}
    hub.add(newer_files)
    newer = client.directory()
    assert contents(newer) == newer_files  # its preprocessor_config.json is gone
    assert contents(older) == MODEL_FILES


SAFE, PICKLE = "model-0000{}-of-00002.safetensors", "pytorch_model-0000{}-of-00002.bin"


def sharded(index: str, shard: str, **more: str) -> dict[str, bytes]:
    weight_map = {"a": shard.format(1), "b": shard.format(2), "c": shard.format(1), **more}
    shards = {shard.format(number): f"shard {number}".encode() * 1000 for number in (1, 2)}
    return {index: json.dumps({"weight_map": weight_map}).encode(), **shards}


WEIGHTS = [
    {"model.safetensors": b"one file"},
    sharded("model.safetensors.index.json", SAFE),
    {"pytorch_model.bin": b"one pickle"},
    sharded("pytorch_model.bin.index.json", PICKLE),
    {"tf_model.h5": b"TensorFlow's"},
]


@needs_client
@pytest.mark.parametrize("best", range(len(WEIGHTS)))
def test_the_best_weights_are_fetched_whole_and_no_others(best: int, hub: Hub, client: Client) -> None:
    available: dict[str, bytes] = {}
    for files in WEIGHTS[best:]:
        available.update(files)
    hub.add({"config.json": b"{}", **available, **OTHER_FILES})
    assert contents(client.directory()) == {"config.json": b"{}", **WEIGHTS[best]}


@needs_client
def test_a_fetched_model_works(hub: Hub, client: Client, tmp_path: Path) -> None:
    made = tmp_path / "made"
    model = tiny.model()
    model.save_pretrained(made)
    EfficientFormerImageProcessor(size=64, crop_size=64).save_pretrained(made)
    hub.add(contents(made))
    directory = client.directory()
    fetched = AutoModelForImageClassification.from_pretrained(directory, dtype=model.dtype)
    pictures = tiny.pictures()
    assert fetched(pictures).logits.tobytes() == model(pictures).logits.tobytes()
    assert AutoImageProcessor.from_pretrained(directory).size == {"height": 64, "width": 64}


# --- what goes wrong -------------------------------------------------------------------------------------------------


@needs_client
def test_interrupted_downloads_leave_no_wrong_file_and_go_on_later(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    hub.breaks_after = {"model.safetensors": 20_000}
    kind, text = client.error()
    assert kind == "OSError"
    assert text.startswith(f"model.safetensors of {REPO} could not be fetched from {hub.url}: ")
    snapshots = list(client.home.rglob("snapshots/*/*"))
    assert sorted(path.name for path in snapshots) == ["config.json", "preprocessor_config.json"]
    whole = {hashlib.sha256(path.read_bytes()).hexdigest() for path in client.home.rglob("blobs/*")}
    assert hashlib.sha256(MODEL_FILES["model.safetensors"]).hexdigest() not in whole

    kind, text = client.error(environment={"HF_HUB_OFFLINE": "1"})  # the half is not taken for the whole
    assert kind == "FileNotFoundError"
    assert "HF_HUB_OFFLINE is set" in text

    hub.breaks_after = {}
    assert contents(client.directory()) == MODEL_FILES


@needs_client
def test_pickles_do_not_stand_in_for_weights_that_could_not_be_asked_for(
    hub: Hub, client: Client, nowhere: str
) -> None:
    hub.add({**MODEL_FILES, "pytorch_model.bin": b"a pickle"})
    client.directory(weights=False)
    assert client.error(environment={"HF_ENDPOINT": f"http://{nowhere}"}) == (
        "OSError", f"http://{nowhere} cannot be reached, and model.safetensors of {REPO} is not in the cache",
    )  # fmt: skip


@needs_client
def test_unknown_repositories(hub: Hub, client: Client) -> None:
    said = (
        f"'nobody/nothing' is no directory here, nor a repository that {hub.url} shows you "
        "(a private one needs HF_TOKEN)"
    )
    assert client.error("nobody/nothing") == ("FileNotFoundError", said)
    assert client.error("nobody/nothing", {"HF_TOKEN": "hf_valid"}) == ("FileNotFoundError", said)


@needs_client
def test_gated_repositories(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES, gated=True, token="hf_friend")
    kind, text = client.error()
    assert kind == "PermissionError"
    assert text.startswith(f"the repository {REPO} is open only to those whom its owner let in: ask for access")
    assert client.error(environment={"HF_TOKEN": "hf_stranger"}) == (kind, text)
    assert contents(client.directory(environment={"HF_TOKEN": "hf_friend"})) == MODEL_FILES


@needs_client
def test_tokens_that_the_hub_does_not_accept(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    kind, text = client.error(environment={"HF_TOKEN": "expired"})
    assert kind == "PermissionError"
    assert text == f"{hub.url} does not accept your token, from HF_TOKEN or from a login: replace it"


@needs_client
def test_unknown_revisions(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    assert client.error(revision="v9") == ("FileNotFoundError", f"the repository {REPO} has no revision 'v9'")


@needs_client
def test_offline_and_not_in_the_cache(hub: Hub, client: Client) -> None:
    hub.add(MODEL_FILES)
    kind, text = client.error(environment={"HF_HUB_OFFLINE": "1"})
    assert kind == "FileNotFoundError"
    assert text == f"HF_HUB_OFFLINE is set, and of {REPO} the cache in {client.home / 'hub'} holds no config.json"
    assert hub.requests == []


@needs_client
def test_no_network(client: Client, nowhere: str) -> None:
    assert client.error(environment={"HF_ENDPOINT": f"http://{nowhere}"}) == (
        "OSError", f"http://{nowhere} cannot be reached, and config.json of {REPO} is not in the cache",
    )  # fmt: skip


@needs_client
def test_an_error_of_the_hub_itself(hub: Hub, client: Client) -> None:
    hub.answers = 503
    assert client.error() == (
        "OSError", f"{hub.url} answered with an error (503), and config.json of {REPO} is not in the cache",
    )  # fmt: skip


@needs_client
def test_repositories_that_lack_something(hub: Hub, client: Client) -> None:
    hub.add({"model.safetensors": b"weights"}, "a/no-config")
    hub.add({"config.json": b"{}", **OTHER_FILES}, "a/no-weights")
    hub.add(
        {"config.json": b"{}", **sharded("model.safetensors.index.json", SAFE, d="model-3.safetensors")}, "a/shards"
    )
    missing = {
        "a/no-config": "config.json",
        "a/no-weights": "weights that can be read here: model.safetensors, model.safetensors.index.json, "
        "pytorch_model.bin, pytorch_model.bin.index.json, tf_model.h5",
        "a/shards": "model-3.safetensors, which model.safetensors.index.json names",
    }
    assert client.calls(*({"repo_id": repo} for repo in missing)) == [
        ("FileNotFoundError", f"the repository {repo} holds no {what}") for repo, what in missing.items()
    ]
    assert client.error("a/no-config", revision="main") == (
        "FileNotFoundError", "the repository a/no-config at main holds no config.json",
    )  # fmt: skip


@needs_client
def test_indexes_cannot_name_other_files(hub: Hub, client: Client) -> None:
    shards = ["../../config.json", "/etc/model.safetensors", "modeling.py", "a\\b.safetensors", "pytorch_model.bin", 7]
    indexes = [*({"weight_map": {"a": shard}} for shard in shards), {"weight_map": ["model-1.safetensors"]}, {}, []]
    for number, index in enumerate(indexes):
        files = {"config.json": b'{"a": 1}', "model.safetensors.index.json": json.dumps(index).encode()}
        hub.add({**files, **OTHER_FILES, "pytorch_model.bin": b"a pickle"}, f"somebody/model-{number}")
    errors = client.calls(*({"repo_id": f"somebody/model-{number}"} for number in range(len(indexes))))
    assert {kind for kind, _ in errors} == {"ValueError"}
    assert all("model.safetensors.index.json" in text for _, text in errors)
    assert len(errors) == len(indexes)
    assert hub.asked_for("GET") == ["config.json", "model.safetensors.index.json"]


@needs_client
def test_names_that_no_repository_can_have(hub: Hub, client: Client) -> None:
    names = ["some/model/deep", "-a/b", "a/b c", "a--b/c", "a/" + "b" * 99, "https://a/b", "../b", "a/.."]
    assert client.calls(*({"repo_id": name} for name in names)) == [
        ("ValueError", f"a repository's name must look like 'owner/name', got {name!r}") for name in names
    ]
    assert hub.requests == []


def test_without_the_client_the_error_says_what_to_install(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["huggingface_hub"] = None
from npformer.checkpoint.hub import download
try:
    download({REPO!r})
except FileNotFoundError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == (
        f"'{REPO}' is no directory here, and to fetch it from the Hugging Face Hub, huggingface_hub must be "
        'installed: pip install "npformer[hub]"\n'
    )


def test_importing_npformer_imports_no_client() -> None:
    script = "import npformer.checkpoint.hub, sys; sys.exit('huggingface_hub' in sys.modules)"
    package = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": package}, check=True)


# --- from the command line -------------------------------------------------------------------------------------------


def run_cli(client: Client, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "npformer", *arguments]
    return subprocess.run(
        command, env=client.environment(**environment), capture_output=True, text=True, timeout=1200, check=False
    )


@needs_client
def test_one_line_classifies_with_a_model_of_the_hub(hub: Hub, client: Client, tmp_path: Path) -> None:
    """Under the name of a published variant, which npformer would otherwise only know by name."""
    config = tiny.config("SwiftFormerForImageClassification", id2label={n: f"thing {n}" for n in range(5)})
    model = tiny.model("SwiftFormerForImageClassification")
    model.config = config
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size=64).save_pretrained(tmp_path / "model")
    files = contents(tmp_path / "model")
    hub.add({**files, **OTHER_FILES}, "MBZUAI/swiftformer-xs")
    pictures = [str(path) for path in list(sample_pictures())[:2]]
    done = run_cli(client, "classify", *pictures, "--model", "MBZUAI/swiftformer-xs")
    assert done.returncode == 0, done.stderr
    assert "thing " in done.stdout
    assert "2 pictures" in done.stdout
    again = run_cli(client, "classify", *pictures, "--model", "MBZUAI/swiftformer-xs", "--json", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert {guess["label"] for guess in json.loads(again.stdout)[0]["predictions"]} <= set(config.id2label.values())


@needs_client
def test_the_command_line_refuses_what_the_hub_does_not_have_in_one_sentence(client: Client) -> None:
    done = run_cli(client, "classify", "--model", "nobody/nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody/nothing" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
