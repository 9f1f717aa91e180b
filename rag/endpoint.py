"""Answers from an OpenAI-compatible server (Together, vLLM, Ollama, ``transformers serve``), by the ``openai`` client.

Its address and key come from the environment and go nowhere but to that client: no log, no message and no ``repr``
holds them.
"""

from __future__ import annotations

import base64
import io
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from models.errors import ExhibitError
from rag.generator import RULES, best_picture, grow_answer, write_prompt
from rag.schema import Answer, Evidence

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EndpointAnswerer", "EndpointError", "EndpointSettings", "read_endpoint"]

URL, KEY, MODEL = "EXHIBIT_ENDPOINT_URL", "EXHIBIT_ENDPOINT_KEY", "EXHIBIT_ENDPOINT_MODEL"
_POLL_S = 0.1
_SIDE_PX = 768
# Their records hold addresses, and below INFO headers.
_TALKATIVE = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")


class EndpointError(ExhibitError):
    """The server cannot be used; the message says why and what to do, and neither its address nor the key."""


@dataclass(frozen=True)
class EndpointSettings:
    """A server and how patient to be with it.

    Attributes:
        url: of its API, such as ``http://127.0.0.1:8000/v1``.
        model: name of the model there.
        key: empty where the server asks for none.
        timeout_s: seconds without a word from it.
        longest_s: seconds of a whole answer.
        retries: further tries where it is busy or out of reach.
        most_tokens: of an answer.
        most_characters: of the evidence shown to it.
    """

    url: str = field(repr=False)
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 60
    longest_s: float = 300
    retries: int = 2
    most_tokens: int = 400
    most_characters: int = 12_000


def read_endpoint(environment: Mapping[str, str]) -> EndpointSettings | None:
    """The server that the environment names; None where it names none.

    Args:
        environment: ``os.environ``, read by whoever starts the program.

    Raises:
        EndpointError: the address is none, or the model is not named.
    """
    url = environment.get(URL, "").strip()
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise EndpointError(
            f"{URL} is no http:// or https:// address; set it to the server's, such as one ending in /v1."
        )
    model = environment.get(MODEL, "").strip()
    if not model:
        raise EndpointError(f"{URL} is set and {MODEL} is not; set it to the name of a model of that server.")
    return EndpointSettings(url, model, environment.get(KEY, "").strip())


class EndpointAnswerer:
    """Asks a server; implements ``rag.generator.Answerer``.

    Args:
        settings: which server.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        import openai

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._settings = settings
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=settings.key or "none",
            timeout=settings.timeout_s,
            max_retries=settings.retries,
        )

    @property
    def name(self) -> str:
        """``endpoint:`` and the model's name."""
        return f"endpoint:{self._settings.model}"

    def answer(
        self,
        question: str,
        evidence: Sequence[Evidence],
        *,
        image: Image.Image | None = None,
        cancel: Event | None = None,
    ) -> Iterator[Answer]:
        """As ``Answerer``. A server whose model sees no pictures is asked again without the picture.

        Raises:
            EndpointError: it refuses, fails, or takes too long.
        """
        given = tuple(evidence)
        prompt = write_prompt(question, given, self._settings.most_characters, rules="")
        picture = image or best_picture(given)
        texts = self._write(prompt, picture, cancel)
        yield from grow_answer(texts, Answer(question, "", self.name, given), cancel)

    def complete(self, prompt: str) -> str:
        """One prompt's whole reply, for ``rag.claims.split_finer``.

        Raises:
            EndpointError: as for ``answer``.
        """
        *_, text = ["", *self._stream([{"role": "user", "content": prompt}], None)]
        return text

    def _write(self, prompt: str, picture: Image.Image | None, cancel: Event | None) -> Iterator[str]:
        rules = {"role": "system", "content": RULES}
        if picture is not None:
            seen = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": _data_url(picture)}}]
            try:
                yield from self._stream([rules, {"role": "user", "content": seen}], cancel)
            except _PictureRefusedError:
                prompt = f"(The picture cannot be shown to you.)\n\n{prompt}"
            else:
                return
        yield from self._stream([rules, {"role": "user", "content": prompt}], cancel)

    def _stream(self, messages: list[dict[str, Any]], cancel: Event | None) -> Iterator[str]:
        """The reply so far, whenever it grows; read in a thread, so that a silent server can be left."""
        news: queue.Queue[str | BaseException | None] = queue.Queue()
        left = Event()
        Thread(target=self._read, args=(messages, news.put, left), daemon=True, name="endpoint").start()
        end = time.monotonic() + self._settings.longest_s
        text = ""
        try:
            while cancel is None or not cancel.is_set():
                if time.monotonic() > end:
                    raise EndpointError(f"{self.name} took more than {self._settings.longest_s:.0f} s; ask for less.")
                try:
                    one = news.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if one is None:
                    return
                if isinstance(one, BaseException):
                    raise self._explain(one, messages) from None
                text += one
                yield text
        finally:
            left.set()

    def _read(
        self, messages: list[dict[str, Any]], put: Callable[[str | BaseException | None], None], left: Event
    ) -> None:
        try:
            chats: Any = self._client.chat.completions
            stream = chats.create(
                model=self._settings.model,
                messages=messages,
                max_tokens=self._settings.most_tokens,
                temperature=0,
                stream=True,
            )
            with stream:
                for part in stream:
                    if left.is_set():
                        return
                    delta = part.choices[0].delta.content if part.choices else None
                    if delta:
                        put(delta)
            put(None)
        except Exception as error:  # noqa: BLE001 - it is raised again where the answer is waited for
            put(error)

    def _explain(self, error: BaseException, messages: list[dict[str, Any]]) -> BaseException:
        """What went wrong in one line, without the address or the key."""
        import openai

        name = self.name
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(f"{name} gave no answer within {self._settings.timeout_s:g} s; try again, or another.")
        if isinstance(error, openai.APIConnectionError):
            return EndpointError(f"{name} cannot be reached; is the server up, and {URL} right?")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return EndpointError(f"{name} refuses the key; set {KEY} to a valid one.")
        if isinstance(error, openai.NotFoundError):
            return EndpointError(f"{name} is not known to the server; check {MODEL} and that {URL} ends as it should.")
        if isinstance(error, openai.RateLimitError):
            return EndpointError(f"{name} is busy or its quota is used up; wait, or use another.")
        if isinstance(error, openai.APIStatusError):
            if isinstance(messages[-1]["content"], list):
                return _PictureRefusedError(name)
            return EndpointError(f"{name} refuses with status {error.status_code} ({self._redact(str(error))}).")
        if isinstance(error, openai.APIError):
            return EndpointError(f"{name} broke off ({self._redact(str(error))}); try again.")
        return error

    def _redact(self, text: str) -> str:
        for secret in filter(None, (self._settings.key, self._settings.url.rstrip("/"))):
            text = text.replace(secret, "…")
        return " ".join(text.split())[:160]


class _PictureRefusedError(EndpointError):
    """The server refuses a request that has a picture in it."""


def _data_url(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
