"""What the Verify tab and its endpoints do with the rooms: index, ask, check, and show why."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Event, RLock
from typing import TYPE_CHECKING, Any

from PIL import Image

from explain import render
from explain.cam import explain_batch
from explain.similarity import similarity_target
from explain.whatif import box_mask, draw_outline
from models.errors import ExhibitError
from models.imaging import SourceImage
from rag.building import Building, build_index
from rag.claims import split_claims, split_finer
from rag.embedding import DEFAULT_PICTURE_MODEL, Embedder, load_embedder
from rag.endpoint import EndpointAnswerer, EndpointSettings
from rag.generator import Answerer, ExtractiveAnswerer, LocalAnswerer
from rag.index import Index
from rag.retriever import Retriever
from rag.schema import Answer, ClaimVerdict, Evidence, Reliability, measure_reliability
from ui.files import check_upload, fresh_path
from ui.services import Services

if TYPE_CHECKING:
    from rag.verifier import Verifier

EXTRACTIVE, ENDPOINT, LOCAL = "extractive", "endpoint", "local:"
DOMAINS = ("photographs", "casework")
MAX_FILES = 2000
MAX_CLAIMS = 40
EVIDENCE_SHOWN = 6
PHOTO_SIDE_PX = 1280
LEAST_SIDE_PX = 640
HEATMAP_METHOD = "gradcampp"
_MOST_FOILS = 4


@dataclass(frozen=True)
class Checked:
    """A checked answer as a visitor's page keeps it.

    Attributes:
        photo: the picture, RGB, at screen size.
        size_wh: of the picture itself, whose pixels the regions are in.
        text: the answer.
        verdicts: on its claims.
        reliability: of the whole.
        note: why nothing is settled, where that is so.
    """

    photo: Image.Image = field(repr=False)
    size_wh: tuple[int, int]
    text: str
    verdicts: tuple[ClaimVerdict, ...]
    reliability: Reliability
    note: str = ""


class VerifyDesk:
    """Composes retrieval, answering, verifying and explaining over the shared models; keeps nothing of a visitor.

    Args:
        services: what all visitors share.
        endpoint: the server that the operator named, if any.
    """

    def __init__(self, services: Services, endpoint: EndpointSettings | None = None) -> None:
        self.services = services
        self._endpoint = endpoint
        self._guard = RLock()
        self._embedder: Embedder | None = None
        self._verifiers: dict[str, Verifier] = {}

    def answerers(self) -> tuple[str, ...]:
        """Names of those who can answer here now, quotations first."""
        loaded = self.services.loader.loaded
        local = [
            LOCAL + spec.id
            for spec in self.services.zoo.specs.values()
            if spec.kind == "vlm" and (spec.bundled or spec.id in loaded)
        ]
        return (EXTRACTIVE, *([ENDPOINT] if self._endpoint else []), *local)

    def indexes(self) -> dict[str, Path]:
        """Indexes in the folders that the operator opened, by name."""
        return {folder.name: folder for folder in self.services.folders if (folder / "chunks.lance").is_dir()}

    def embedder(self) -> Embedder:
        """The encoders of retrieval, loaded once.

        Raises:
            ModelUnavailableError: the image-text model cannot be had.
        """
        with self._guard:
            if self._embedder is None:
                self._embedder = load_embedder(self.services.loader, DEFAULT_PICTURE_MODEL)
            return self._embedder

    def build(self, files: Sequence[tuple[Path, str]], cancel: Event) -> Iterator[tuple[Path, Building]]:
        """An index of uploaded files, in a place of its own.

        Args:
            files: where each lies, and what it was called.
            cancel: set by another thread, ends it.

        Yields:
            The index's folder, and how far it is.

        Raises:
            ExhibitError: there are none, too many, or none can be read.
        """
        if len(files) > MAX_FILES:
            raise ExhibitError(
                f"{len(files)} files are more than the {MAX_FILES} indexed here; use python -m rag build."
            )
        corpus, index = fresh_path("corpus"), fresh_path("index")
        corpus.mkdir()
        for path, name in files:
            shutil.copyfile(check_upload(path), _free(corpus, name))
        try:
            for state in build_index(corpus, index, self.embedder(), cancel):
                yield index, state
        finally:
            shutil.rmtree(corpus.parent, ignore_errors=True)

    def retrieve(self, question: str, source: SourceImage | None, index: Path | None) -> tuple[Evidence, ...]:
        """Evidence of an index; none without one."""
        if index is None:
            return ()
        retriever = Retriever(Index.open(index), self.embedder())
        return retriever.find(question, source.rgb if source else None, EVIDENCE_SHOWN)

    def answer(
        self, question: str, source: SourceImage | None, evidence: Sequence[Evidence], answerer: str, cancel: Event
    ) -> Iterator[Answer]:
        """The answer as it grows.

        Raises:
            ExhibitError: there is no such answerer here, or it cannot answer.
        """
        yield from self._answerer(answerer).answer(
            question, evidence, image=source.rgb if source else None, cancel=cancel
        )

    def check(
        self,
        source: SourceImage,
        text: str,
        evidence: Sequence[Evidence] = (),
        domain: str = DOMAINS[0],
        *,
        finer: bool = False,
    ) -> Checked:
        """Every claim of an answer held against a picture.

        Args:
            source: the picture.
            text: the answer.
            evidence: that it was given from; captions among it are one of the signals.
            domain: kind of picture.
            finer: let the operator's language model split the answer, where one is connected.

        Raises:
            ExhibitError: the answer makes no claim, or too many, or a model cannot be had.
        """
        server = EndpointAnswerer(self._endpoint) if finer and self._endpoint else None
        claims = split_finer(text, server.complete) if server else split_claims(text)
        if not claims:
            raise ExhibitError("The answer makes no claim that a picture could bear out; write statements.")
        if len(claims) > MAX_CLAIMS:
            raise ExhibitError(
                f"{len(claims)} claims are more than the {MAX_CLAIMS} checked at a time; shorten the answer."
            )
        verifier = self._verifier(domain)
        verdicts = tuple(verifier.verify(source.rgb, claims, evidence=evidence))
        photo = render.fit(source.rgb, PHOTO_SIDE_PX)
        return Checked(photo, source.size_wh, text, verdicts, measure_reliability(verdicts), verifier.note)

    def draw_claim(self, checked: Checked, number: int) -> tuple[Image.Image, str]:
        """The picture under the heat of a claim against its foils, its best region outlined.

        Returns:
            A new RGB picture, and why it bears no heat, where that is so.

        Raises:
            ModelUnavailableError: the image-text model cannot be had.
        """
        verdict = checked.verdicts[number]
        foils = [foil.text for foil in verdict.foils if foil.text != verdict.claim.text][:_MOST_FOILS]
        live = self.embedder().pictures
        target = similarity_target(live, verdict.claim.text, foils)
        (found,) = explain_batch(live, [checked.photo], methods=(HEATMAP_METHOD,), targets=(target,))
        problem = found.problems[0].message if found.problems else ""
        photo = _enlarged(checked.photo)
        drawn = render.draw_heatmap(photo, found.heatmaps[0]) if found.heatmaps else photo
        if verdict.region_xyxy is not None:
            drawn = draw_outline(drawn, box_mask(checked.size_wh, verdict.region_xyxy))
        return drawn, problem

    def _verifier(self, domain: str) -> Verifier:
        from rag.verifier import load_verifier

        with self._guard:
            if domain not in self._verifiers:
                sentences: Any = self.embedder().sentences
                self._verifiers[domain] = load_verifier(
                    self.services.loader,
                    clip=DEFAULT_PICTURE_MODEL,
                    detector=self.services.default_detector(),
                    sentences=sentences,
                    domain=domain,
                )
            return self._verifiers[domain]

    def _answerer(self, name: str) -> Answerer:
        if name == ENDPOINT and self._endpoint is not None:
            return EndpointAnswerer(self._endpoint)
        if name.startswith(LOCAL) and name in self.answerers():
            live: Any = self.services.live(name.removeprefix(LOCAL))
            return LocalAnswerer(live)
        if name != EXTRACTIVE:
            raise ExhibitError(f"{name!r} answers nothing here; choose among: {', '.join(self.answerers())}.")
        return ExtractiveAnswerer(self.embedder().sentences)


def _enlarged(photo: Image.Image) -> Image.Image:
    """A copy at least large enough that an outline hides little of it."""
    factor = max(1.0, LEAST_SIDE_PX / max(photo.size))
    return photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)


def _free(folder: Path, name: str) -> Path:
    """A path in the folder called as the visitor's file; a number goes before the suffix where the name is taken."""
    plain = PurePosixPath(name.replace("\\", "/")).name.lstrip(".")[-120:] or "file"
    wanted = folder / plain
    taken = 1
    while wanted.exists():
        taken += 1
        wanted = folder / f"{Path(plain).stem}-{taken}{Path(plain).suffix}"
    return wanted
