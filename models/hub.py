"""Models of a hub: found in the local cache, or fetched with a progress report, bounded waiting and no surprises.

The client is ``huggingface_hub``; this room decides what is fetched (the listing is looked at first, so a repository of
pickles costs no download), pins a moving revision, and turns every way a download can fail into a reason and a remedy.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self, cast

from filelock import FileLock
from httpx2 import ReadError, RemoteProtocolError, TimeoutException, TransportError
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from models.errors import ModelUnavailableError
from models.registry import is_commit
from models.weights import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    SINGLE,
    choose_names,
    classifier_weights,
    clip_weights,
    hash_files,
    vlm_weights,
)

__all__ = ["Hub", "Pins", "Progress", "Wanted", "cache_folder"]

Progress = Callable[[float | None, str], None]
"""Called with the share done in [0, 1], or None while it is unknown, and a few words."""

_CUT_OFF = "Consistency check failed"


class _GivenUpError(Exception):
    """Raised inside a download that nobody waits for any more."""


@dataclass(frozen=True)
class Wanted:
    """What to get from a hub: a model's folder, or one file of a detector.

    Attributes:
        repo: ``org/name``.
        revision: commit, tag or branch.
        file: the one file to get; ``None`` for a model's folder.
        access: ``public``; ``gated`` and ``private`` repositories give nothing without a token.
        kind: ``classifier``, ``vlm`` (a whole model or an adapter), ``clip``, ``remote`` for a model with code of
            its own, or ``weights`` for what another repository's code reads.
    """

    repo: str
    revision: str
    file: str | None = None
    access: str = "public"
    kind: str = "classifier"


def cache_folder() -> Path:
    """Where Exhibit keeps what it must remember: ``EXHIBIT_CACHE``, or ``exhibit`` in the user's cache folder."""
    own = os.environ.get("EXHIBIT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exhibit"


class Pins:
    """The lock file: which commit a moving revision meant when it was first downloaded.

    Args:
        file: JSON, ``{"org/name@main": "<commit>"}``; written whole or not at all, safe between processes.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def get(self, repo: str, revision: str) -> str | None:
        """The pinned commit, the revision itself where it is a commit, or ``None``."""
        return revision if is_commit(revision) else self._read().get(f"{repo}@{revision}")

    def put(self, repo: str, revision: str, commit: str) -> None:
        """Pins ``revision`` unless it is a commit or pinned already."""
        if is_commit(revision):
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.file}.lock"):
            pins = self._read()
            if f"{repo}@{revision}" in pins:
                return
            pins[f"{repo}@{revision}"] = commit
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.file.parent, prefix=self.file.name, delete=False
            ) as draft:
                json.dump(dict(sorted(pins.items())), draft, indent=1)
            Path(draft.name).replace(self.file)

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads(self.file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelUnavailableError(
                f"the lock file {self.file} cannot be read", "delete it; revisions are then resolved anew"
            ) from error
        if not isinstance(content, dict):
            raise ModelUnavailableError(f"the lock file {self.file} is damaged", "delete it")
        return {str(key): str(value) for key, value in content.items()}


@dataclass
class Hub:
    """One hub and the local cache of what came from it.

    Attributes:
        endpoint: address; from ``HF_ENDPOINT``, else huggingface.co.
        cache: the hub client's own cache folder, shared with other programs.
        pins: the lock file.
        offline: never use the network; also set by ``HF_HUB_OFFLINE``.
        answer_s: seconds within which the hub must answer a question.
        stall_s: seconds within which a download must move. The client reports every 10 MB, so less would give up slow
            but living connections.
        limit_s: seconds one model may take in all.
    """

    endpoint: str = field(default_factory=lambda: os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"))
    cache: Path = field(default_factory=lambda: Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE))
    pins: Pins = field(default_factory=lambda: Pins(cache_folder() / "zoo.lock.json"))
    offline: bool = False
    answer_s: float = 5
    stall_s: float = 90
    limit_s: float = 1800

    def __post_init__(self) -> None:
        """Turns telemetry off before the client is first used."""
        _stay_private()
        self.offline = self.offline or bool(constants.HF_HUB_OFFLINE)

    def cached(self, wanted: Wanted) -> tuple[Path, str] | None:
        """The complete folder (or file) on this machine and its commit, without asking the network."""
        commit = self.pins.get(wanted.repo, wanted.revision)
        revision = commit or wanted.revision
        names = (wanted.file,) if wanted.file else (CONFIG, ADAPTER_CONFIG, SINGLE, INDEX)
        told = (try_to_load_from_cache(wanted.repo, name, cache_dir=self.cache, revision=revision) for name in names)
        found = next((path for path in told if isinstance(path, str)), None)
        if found is None:
            return None
        path = Path(found)
        folder = next(parent for parent in path.parents if parent.parent.name == "snapshots")
        if wanted.file:
            return path, folder.name
        try:
            if wanted.kind in ("classifier", "clip"):
                (clip_weights if wanted.kind == "clip" else classifier_weights)(folder)
            else:
                vlm_weights(folder, wanted.kind)
        except ModelUnavailableError:
            return None
        return folder, folder.name

    def fetch(self, wanted: Wanted, progress: Progress) -> tuple[Path, str]:
        """The folder (or file) and its commit, downloaded where it is not on this machine yet.

        Raises:
            UnsafeWeightsError: the repository offers pickles only; nothing of it was downloaded.
            ModelUnavailableError: it cannot be had; the error gives reason and remedy.
        """
        here = self.cached(wanted)
        if here is None:
            problem = self.obstacle(wanted)
            if problem:
                raise problem
            here = self._download(wanted, progress)
        self.pins.put(wanted.repo, wanted.revision, here[1])
        return here

    def obstacle(self, wanted: Wanted) -> ModelUnavailableError | None:
        """Why a download would be pointless, as far as this can be told without the network."""
        if self.offline:
            return ModelUnavailableError(
                f"{wanted.repo} is not on this machine and the hub is not to be used (offline)", self._copy(wanted)
            )
        if wanted.access != "public" and get_token() is None:
            return ModelUnavailableError(
                f"{wanted.repo} is {wanted.access} and there is no access token on this machine",
                "ask its owner for access, then run `hf auth login`",
            )
        return None

    def _download(self, wanted: Wanted, progress: Progress) -> tuple[Path, str]:
        meter = _Meter(progress, wanted)
        outcome: list[tuple[Path, str]] = []
        failure: list[Exception] = []
        done = Event()

        def work() -> None:
            try:
                outcome.append(self._get(wanted, meter))
            except Exception as error:  # noqa: BLE001 - carried to the waiting thread, which raises it
                failure.append(error)
            finally:
                done.set()

        # The client can wait for minutes in ways no option bounds; a thread that can be left alone does not.
        Thread(target=work, name=f"download {wanted.repo}", daemon=True).start()
        begin = time.monotonic()
        while not done.wait(min(self.stall_s / 10, 0.2)):
            now = time.monotonic()
            if now - meter.moved_at > self.stall_s or now - begin > self.limit_s:
                meter.give_up()
                raise ModelUnavailableError(
                    f"downloading {wanted.repo} is too slow: given up after {now - begin:.0f} s",
                    f"try again later, or {self._copy(wanted)}",
                )
        if failure:
            raise self._explain(failure[0], wanted) from failure[0]
        return outcome[0]

    def _get(self, wanted: Wanted, meter: _Meter) -> tuple[Path, str]:
        revision = self.pins.get(wanted.repo, wanted.revision) or wanted.revision
        api = HfApi(endpoint=self.endpoint)
        info = api.model_info(wanted.repo, revision=revision, timeout=self.answer_s, files_metadata=True)
        files = _chosen(info.siblings or [], wanted)
        meter.expect(sum(file.size or 0 for file in files))
        commit = str(info.sha)
        paths = [self._file(wanted.repo, file, commit, meter) for file in files]
        return (paths[0] if wanted.file else paths[0].parent), commit

    def _file(self, repo: str, file: RepoSibling, commit: str, meter: _Meter) -> Path:
        meter.check()
        path = Path(
            hf_hub_download(
                repo,
                file.rfilename,
                revision=commit,
                cache_dir=self.cache,
                endpoint=self.endpoint,
                etag_timeout=self.answer_s,
                tqdm_class=cast("Any", meter.bar),
            )
        )
        stated = file.lfs.sha256 if file.lfs else None
        if stated and hash_files([path]) != stated:
            # A bad file left in the cache would pass for a good one the next time.
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise ModelUnavailableError(f"{file.rfilename} of {repo} arrived damaged", "try again")
        return path

    def _explain(self, error: Exception, wanted: Wanted) -> ModelUnavailableError:
        """A client's error as a reason and a remedy."""
        if isinstance(error, ModelUnavailableError):
            return error
        cause: BaseException = error
        while isinstance(cause, LocalEntryNotFoundError) and cause.__cause__ is not None:
            cause = cause.__cause__
        reason, remedy = self._reason(cause, wanted)
        return ModelUnavailableError(reason, remedy)

    def _reason(self, cause: BaseException, wanted: Wanted) -> tuple[str, str]:
        repo, page = wanted.repo, f"{self.endpoint}/{wanted.repo}"
        if isinstance(cause, GatedRepoError):
            return f"{repo} is gated: its owner must let you in", f"ask for access at {page}, then run `hf auth login`"
        code = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
        if isinstance(cause, RepositoryNotFoundError) or code == 401:
            return (
                f"{repo} is private, or there is no such repository",
                "check its name; if it is private, ask its owner for access and run `hf auth login`",
            )
        if isinstance(cause, RevisionNotFoundError):
            return f"{repo} has no revision {wanted.revision!r}", "correct `revision` in the zoo file"
        if isinstance(cause, RemoteEntryNotFoundError):
            return f"a file of {repo} vanished from the hub while it was being downloaded", "try again"
        if isinstance(cause, HfHubHTTPError):
            if code == 403:
                return f"the hub refuses {repo} ({code})", "run `hf auth login` with a token that may read it"
            return f"the hub answered {code} for {repo}", f"try again later, or {self._copy(wanted)}"
        if isinstance(cause, TimeoutException):
            return f"the hub did not answer in time for {repo}", f"try again later, or {self._copy(wanted)}"
        if isinstance(cause, ReadError | RemoteProtocolError) or _CUT_OFF in str(cause):
            return f"a file of {repo} arrived cut off", "try again"
        if isinstance(cause, TransportError | OfflineModeIsEnabled):
            return f"{repo} is not on this machine and the hub cannot be reached", self._copy(wanted)
        if isinstance(cause, HFValidationError):
            return f"{repo!r} is no repository name", "correct `source` in the zoo file"
        if isinstance(cause, OSError):
            return f"{repo} cannot be stored in {self.cache} ({cause.strerror or cause})", "free some disk space there"
        return f"{repo} cannot be downloaded ({type(cause).__name__})", self._copy(wanted)

    def _copy(self, wanted: Wanted) -> str:
        folder = self.cache / f"models--{wanted.repo.replace('/', '--')}"
        return (
            f"run `hf download {wanted.repo} --revision {wanted.revision}` where there is network and copy "
            f"~/.cache/huggingface/hub/{folder.name} from there to {folder}"
        )


def _chosen(siblings: list[RepoSibling], wanted: Wanted) -> list[RepoSibling]:
    """The files to download, small ones first.

    Raises:
        UnsafeWeightsError: pickles only.
        ModelUnavailableError: a file that is needed is not listed.
    """
    top = {file.rfilename: file for file in siblings if "/" not in file.rfilename or file.rfilename == wanted.file}
    if wanted.file:
        if wanted.file not in top:
            raise ModelUnavailableError(f"{wanted.repo} has no file {wanted.file}", "correct `file` in the zoo file")
        return [top[wanted.file]]
    return [top[name] for name in choose_names(top, wanted.repo, wanted.kind)]


class _Meter:
    """Adds up what several progress bars of the client report, and ends a download that was given up."""

    def __init__(self, progress: Progress, wanted: Wanted) -> None:
        self._progress = progress
        self._text = f"downloading {wanted.repo}"
        self._lock = Lock()
        self._total = 0
        self._done = 0
        self._stop = False
        self.moved_at = time.monotonic()
        progress(None, self._text)

    def expect(self, total: int) -> None:
        self._total = total
        self.add(0)

    def add(self, count: float) -> None:
        self.check()
        with self._lock:
            self._done += int(count)
            self.moved_at = time.monotonic()
            share = min(self._done / self._total, 1.0) if self._total else None
        self._progress(share, f"{self._text}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB")

    def give_up(self) -> None:
        self._stop = True

    def check(self) -> None:
        if self._stop:
            raise _GivenUpError

    def bar(self, *_args: object, initial: float = 0, **_options: Any) -> _Bar:  # noqa: ANN401
        """Stands in for a tqdm class."""
        return _Bar(self, initial)


class _Bar:
    """The part of tqdm that the client uses."""

    def __init__(self, meter: _Meter, initial: float) -> None:
        self._meter = meter
        if initial:
            meter.add(initial)

    def update(self, count: float | None = 1) -> None:
        self._meter.add(count or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is drawn, so nothing is to be closed."""


def _stay_private() -> None:
    """No telemetry, and plain HTTPS, whose waiting can be bounded.

    The client reads these variables once, when it is imported, which another library may have done long before;
    therefore its own copies are set too. They stay in the environment for worker processes.
    """
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_XET"):
        os.environ[name] = "1"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_XET = True
