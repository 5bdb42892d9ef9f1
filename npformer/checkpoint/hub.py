"""Download of models from the Hugging Face Hub, into the cache that all hub clients share.

Needs huggingface_hub, which does the work and honours its usual environment variables: HF_HOME sets the cache,
HF_ENDPOINT the server, HF_TOKEN the credentials, and HF_HUB_OFFLINE=1 forbids any request. Only the parts that a model
here needs are downloaded: settings and weights, never code, nor other files of a training run.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from .files import NAMES
from .json_object import read_json

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
INDEX = ".index.json"


def download(repo_id: str, *, revision: str | None = None, weights: bool = True) -> Path:
    """Download a model into the hub's cache unless it is there, and return the directory that holds its files.

    `repo_id` is "owner/name"; `revision` a branch, tag or commit, None for the main branch. A branch is looked up anew
    each time, and the cache is used where the hub cannot be reached. The directory holds `config.json`,
    `preprocessor_config.json` where there is one, and, unless `weights` is False, the weights: `model.safetensors`, or
    else `pytorch_model.bin`, single or in shards, or else `tf_model.h5`.

    Raises FileNotFoundError where huggingface_hub, the repository, the revision or a file is missing, or is not in the
    cache and HF_HUB_OFFLINE is set; PermissionError where the hub requires a token; ValueError for an invalid name or
    index; OSError where the hub cannot be reached or the connection breaks.
    """
    repository = _Repository(_client(repo_id), repo_id, revision)
    config = repository.fetch(CONFIG)
    if config is None:
        raise repository.lacks(CONFIG)
    # All further files come from this commit, so that two versions never mix.
    repository.commit = config.parent.name
    repository.fetch(PROCESSOR)
    if weights:
        _fetch_weights(repository)
    return config.parent


def _fetch_weights(repository: _Repository) -> None:
    """Download the best weights that the repository has, shards included."""
    for name in NAMES:
        path = repository.fetch(name)
        if path is None:
            continue
        for shard in _shards(path) if name.endswith(INDEX) else ():
            if repository.fetch(shard) is None:
                raise repository.lacks(f"{shard}, which {name} names")
        return
    raise repository.lacks(f"weights that can be read here: {', '.join(NAMES)}")


def _shards(index: Path) -> list[str]:
    """Return the files that an index names, each once. Raises ValueError unless all are weights beside the index."""
    weight_map = read_json(index).get("weight_map")
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index} must map tensor names to files under weight_map")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if "/" in shard or "\\" in shard or not shard.endswith(suffix):
            raise ValueError(f"{index} names the shard {shard!r}, which must be a plain file name ending in {suffix}")
    return shards


def _client(repo_id: str) -> Any:
    """Return the module huggingface_hub, imported only where it is needed."""
    try:
        for submodule in ("constants", "utils"):  # lazily imported: attributes only after that
            importlib.import_module(f"huggingface_hub.{submodule}")
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise FileNotFoundError(
            f"{repo_id!r} is no directory here, and to fetch it from the Hugging Face Hub, huggingface_hub must be "
            'installed: pip install "npformer[hub]"'
        ) from None


class _Repository:
    """A repository of the hub, at a revision and then, once `commit` is known, at that commit."""

    def __init__(self, client: Any, repo_id: str, revision: str | None) -> None:
        self.client = client
        self.repo_id = repo_id
        self.revision = revision
        self.commit: str | None = None

    @property
    def offline(self) -> bool:
        """True if HF_HUB_OFFLINE forbids requests."""
        return bool(self.client.constants.HF_HUB_OFFLINE)

    def fetch(self, name: str) -> Path | None:
        """Return a file's path in the cache; None where the repository or, offline, the cache does not have it."""
        errors = self.client.utils
        if self.commit is not None:  # the files of a commit never change
            known = self.client.try_to_load_from_cache(self.repo_id, name, revision=self.commit)
            if known is not None:
                return Path(known) if isinstance(known, str) else None
        try:
            return Path(self.client.hf_hub_download(self.repo_id, name, revision=self.commit or self.revision))
        except errors.LocalEntryNotFoundError as error:  # neither cached nor available; a kind of EntryNotFoundError
            if self.offline:
                return None
            raise self._unreachable(name, error) from None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:  # any error of the client or of its HTTP library
            raise self._explained(name, error) from None

    def lacks(self, what: str) -> FileNotFoundError:
        """Return the error for a required file that is missing."""
        if self.offline:
            return FileNotFoundError(
                f"HF_HUB_OFFLINE is set, and of {self._name()} the cache in {self.client.constants.HF_HUB_CACHE} "
                f"holds no {what}"
            )
        return FileNotFoundError(f"the repository {self._name()} holds no {what}")

    def _unreachable(self, name: str, error: Exception) -> OSError:
        """Return the error for a hub that could not be reached, or that answered with an error of its own."""
        status = _status(error.__cause__)
        if status == 401:
            return self._refused()
        reason = "cannot be reached" if status is None else f"answered with an error ({status})"
        return OSError(f"{self._hub()} {reason}, and {name} of {self._name()} is not in the cache")

    def _explained(self, name: str, error: Exception) -> Exception:
        """Return an error of the client in one sentence.

        The order of the cases matters: a gated repository counts as not found there.
        """
        errors = self.client.utils
        if isinstance(error, errors.HFValidationError):
            return ValueError(f"a repository's name must look like 'owner/name', got {self.repo_id!r}")
        if isinstance(error, errors.GatedRepoError):
            return PermissionError(
                f"the repository {self._name()} is open only to those whom its owner let in: ask for access on "
                f"{self._hub()}/{self.repo_id}, then set HF_TOKEN to your token"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return FileNotFoundError(
                f"{self.repo_id!r} is no directory here, nor a repository that {self._hub()} shows you (a private one "
                "needs HF_TOKEN)"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return FileNotFoundError(f"the repository {self.repo_id} has no revision {self.revision!r}")
        if _status(error) == 401:
            return self._refused()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return OSError(f"{name} of {self._name()} could not be fetched from {self._hub()}: {lines[0][:300]}")

    def _refused(self) -> PermissionError:
        return PermissionError(f"{self._hub()} does not accept your token, from HF_TOKEN or from a login: replace it")

    def _hub(self) -> str:
        return str(self.client.constants.ENDPOINT)

    def _name(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id} at {self.revision}"


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status, such as 404, of the response that caused an error, if any."""
    return getattr(getattr(error, "response", None), "status_code", None)
