"""The Hugging Face hub: which commit a revision is, a split of a data set, a folder's way there, and in a sentence what
went wrong."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from sgpo_core.config.base import ConfigError

Kind = Literal["model", "dataset"]
_WORDS = {"model": "model", "dataset": "data set"}

_log = logging.getLogger(__name__)


def is_id(name: str) -> bool:
    """Whether it has the form ORG/NAME[@REVISION]."""
    return name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~"))


def ask(kind: Kind, name: str, revision: str | None) -> str:
    """The commit that a revision of a repository stands for (None: its newest one). This question has a time limit
    (HF_HUB_ETAG_TIMEOUT, 10 s) and is not repeated: those that follow are, for half a minute where the hub is out of
    reach, and for many where a firewall drops packets. Raises the errors of huggingface_hub and httpx2."""
    if kind == "dataset":
        _check_offline()
    api = HfApi()
    api.repo_info(name, repo_type=kind, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return api.resolve_revision(name, repo_type=kind, revision=revision).resolved  # which notes it for offline use


def load_split(name: str, subset: str | None, split: str, revision: str | None, streaming: bool = False) -> Any:
    """A split of a data set, of exactly the revision that is asked for; where the hub does not give it, from the cache
    of `datasets`. (On its own this library then takes the newest that it has, of any revision.) Raises the errors of
    huggingface_hub, httpx2 and datasets."""
    from datasets import load_dataset_builder

    try:
        commit = ask("dataset", name, revision)
        _check_access(name, commit)
        builder = load_dataset_builder(name, subset, revision=commit)
        if builder.hash != commit:
            raise LocalEntryNotFoundError(f"only its revision {builder.hash} can be had")
        if streaming:
            return builder.as_streaming_dataset(split=split)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except Exception as error:
        if (kept := _kept(name, subset, split, revision)) is None:
            raise
        from_the_cache(error, "dataset", name, revision)
        return kept


def make_repository(kind: Kind, name: str, private: bool) -> None:
    """Makes a repository where there is none. Raises ConfigError that says what to do; no token is in it."""
    if not _token():
        raise ConfigError(f"{name}: no token of the hub is set: {_a_token_for(name)}")
    api = HfApi()
    try:
        api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True)
        # Of a repository that is there, `create_repo` changes nothing.
        public = private and not api.repo_info(name, repo_type=kind).private
    except Exception as error:
        raise ConfigError(f"{name}: {_refusal(error, kind, name)}") from None
    if public:
        raise ConfigError(f"{name} is there already, and public: choose another name, or leave out --private")


def upload(kind: Kind, name: str, folder: Path, ours: Sequence[str]) -> str:
    """Commits what of the folder the repository does not have yet. Files there that have the pattern of `ours` and are
    not in the folder go: an earlier publication left them. Returns the address of its page. Raises ConfigError like
    `make_repository`."""
    try:
        HfApi().upload_folder(
            repo_id=name,
            repo_type=kind,
            folder_path=folder,
            delete_patterns=list(ours),
            commit_message=f"Publish {name}",
        )
    except Exception as error:
        raise ConfigError(f"{name}: {_refusal(error, kind, name)}") from None
    return _page(kind, name)


def _refusal(error: Exception, kind: Kind, name: str) -> str:
    """Why an upload has failed, and what helps."""
    # Of a thread that sends a large file.
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    match _innermost(error):
        case HfHubHTTPError() as answer if answer.response.status_code == 401:
            return f"the hub does not accept {_token()}: {_a_token_for(name)}"
        case HfHubHTTPError() as answer if answer.response.status_code in (403, 404):
            return f"{_token()} may not write there: {_a_token_for(name)}"
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE forbids to ask the hub: unset it"
    return sentence(error, kind, name, None)


def _a_token_for(name: str) -> str:
    owner = name.partition("/")[0]
    return f"set HF_TOKEN to one that may write to {owner} ({constants.ENDPOINT}/settings/tokens)"


def _page(kind: Kind, name: str) -> str:
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"


def from_the_cache(error: Exception, kind: Kind, name: str, revision: str | None) -> None:
    """Says in the log why a repository comes from the cache, unless the user has asked for just that."""
    if not isinstance(_innermost(error), OfflineModeIsEnabled):
        _log.warning("%s comes from the cache: %s", name, sentence(error, kind, name, revision))


def _check_offline() -> None:
    """HF_DATASETS_OFFLINE may be set alone: huggingface_hub does not know it."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("offline mode is enabled")


def _check_access(name: str, commit: str) -> None:
    """Raises the hub's own error for a gated data set, which `datasets` would replace by another."""
    with suppress(RemoteEntryNotFoundError):
        hf_hub_download(name, "README.md", repo_type="dataset", revision=commit)


def _kept(name: str, subset: str | None, split: str, revision: str | None) -> Any | None:
    """What the cache of `datasets` holds of this revision. (None: what was the newest when the hub was last asked, else
    what was made last.)"""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    commit = _noted(name, revision)
    if revision is not None and commit is None:
        return None
    owner, _, short = name.rpartition("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join(filter(None, [owner, camelcase_to_snakecase(short)]))
    files = list(root.glob(f"{subset or '*'}/*/{commit if revision else '*'}/dataset_info.json"))
    folders = sorted(
        (file.parent for file in files), key=lambda folder: (folder.name == commit, folder.stat().st_mtime)
    )
    if not folders or len({folder.parts[-3] for folder in folders}) > 1:
        return None
    config, version, found = folders[-1].parts[-3:]
    builder = Cache(repo_id=name, dataset_name=short, config_name=config, version=version, hash=found)
    return builder.as_dataset(split=split)


def _noted(name: str, revision: str | None) -> str | None:
    """The commit of a data set's revision as far as it is known here."""
    try:
        return HfApi().resolve_revision(name, repo_type="dataset", revision=revision, local_files_only=True).resolved
    except RevisionResolutionError:
        return None


def sentence(error: Exception, kind: Kind, name: str, revision: str | None) -> str:
    """What went wrong with a repository and what helps. No token is in it."""
    error = _innermost(error)
    page = _page(kind, name)
    token = _token()
    match error:
        case GatedRepoError() if token:
            return f"it is gated, and the account of {token} has no access: accept the terms at {page}"
        case GatedRepoError():
            return f"it is gated: accept the terms at {page}, and set HF_TOKEN to a token of that account"
        case RepositoryNotFoundError() if token:
            return (
                f"there is no {_WORDS[kind]} of this name, or {token} may not read it or is not valid: look at {page}"
            )
        case RepositoryNotFoundError():
            return f"there is no {_WORDS[kind]} of this name at {page}, or it is private: then set HF_TOKEN"
        case RevisionNotFoundError():
            return f"it has no revision {revision}: those that it has are at {page}/commits/main"
        case HfHubHTTPError() if error.response.status_code == 401:
            return f"the hub does not accept {token or 'HF_TOKEN'}: correct it, or unset it for what is public"
        case HfHubHTTPError():
            return f"the hub answers {error.response.status_code} ({error.server_message or 'it says no more'})"
        case OfflineModeIsEnabled():
            return "it is not in the cache, and HF_HUB_OFFLINE (or HF_DATASETS_OFFLINE) forbids to ask for it"
        case httpx2.LocalProtocolError() | UnicodeEncodeError():  # their messages show the token
            return f"{token or 'HF_TOKEN'} has characters that no token has: set it anew"
        case httpx2.ConnectError() | httpx2.TimeoutException():
            return f"{constants.ENDPOINT} does not answer ({type(error).__name__}): look at HF_ENDPOINT and the proxy"
        case httpx2.TransportError():
            return f"the connection to {constants.ENDPOINT} broke ({type(error).__name__}): try again"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _innermost(error: Exception) -> Exception:
    """The error that a missing file of the cache is only the consequence of."""
    while isinstance(error, LocalEntryNotFoundError | RevisionResolutionError) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__
    return error


def _token() -> str:
    """Where the token in use comes from; empty where there is none."""
    if os.environ.get("HF_TOKEN", "").strip():
        return "HF_TOKEN"
    return "the token of `hf auth login`" if get_token() else ""
