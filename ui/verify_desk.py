"""What the Verify tab and its endpoints do with the rooms: index, ask, check, and show why."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Event, RLock
from typing import TYPE_CHECKING, Any

from PIL import Image

from explain import render
from explain.attribution import attribute_claim
from explain.cam import explain_batch
from explain.schema import WordAttribution
from explain.similarity import similarity_target
from explain.whatif import box_mask, draw_outline
from explain.words import find_words
from models.errors import ExhibitError
from models.imaging import SourceImage
from models.schema import Box
from rag.building import Building, build_index
from rag.claims import split_claims, split_finer
from rag.embedding import DEFAULT_PICTURE_MODEL, Embedder, TextEncoder, load_embedder
from rag.endpoint import EndpointAnswerer, EndpointSettings
from rag.generator import Answerer, ExtractiveAnswerer, LocalAnswerer
from rag.index import Index
from rag.retriever import Retriever
from rag.schema import Answer, ClaimVerdict, Evidence, Reliability, measure_reliability
from ui.files import check_upload, fresh_path
from ui.progress import News
from ui.services import Choice, Services

if TYPE_CHECKING:
    from models.clip import ImageTextModel

EXTRACTIVE, ENDPOINT, LOCAL = "extractive", "endpoint", "local:"
DOMAINS = ("photographs", "casework")
MAX_FILES = 2000
MAX_CLAIMS = 40
MOST_WORDS = 40
"""Words of a claim up to which each is scored: every one more costs sixteen texts."""

EVIDENCE_SHOWN = 6
PHOTO_SIDE_PX = 1280
LEAST_SIDE_PX = 640
HEATMAP_METHOD = "gradcampp"
_MOST_FOILS = 4


@dataclass(frozen=True)
class Judges:
    """Who holds claims against a picture.

    Attributes:
        clip: zoo id of the image-text model.
        vlm: zoo id of a vision-language model that is asked as well; empty for none.
        domain: kind of picture that the verdicts are calibrated for.
    """

    clip: str = DEFAULT_PICTURE_MODEL
    vlm: str = ""
    domain: str = DOMAINS[0]


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
        judges: who read it.
    """

    photo: Image.Image = field(repr=False)
    size_wh: tuple[int, int]
    text: str
    verdicts: tuple[ClaimVerdict, ...]
    reliability: Reliability
    note: str = ""
    judges: Judges = Judges()


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
        self._encoder: TextEncoder | None = None

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

    def judges(self, kind: str) -> tuple[Choice, ...]:
        """The models of a kind, ``clip`` or ``vlm``, that claims can be held against a picture by, and what serves."""
        specs = (spec for spec in self.services.zoo.specs.values() if spec.kind == kind)
        return tuple(Choice(spec, self.services.loader.status(spec.id)) for spec in specs)

    def load(
        self, stopping: Event, judges: Judges, answerer: str = EXTRACTIVE, index: Path | None = None
    ) -> Iterator[tuple[str, News]]:
        """Load what an answer and its check need, telling how far it is; whoever needs a model that failed says so.

        Args:
            stopping: ends the waiting.
            judges: who will check.
            answerer: who will answer.
            index: what will be searched.

        Yields:
            The model being loaded and the latest news of it.

        Raises:
            ExhibitError: there is no such index.
        """
        searched = Index.open(index).origin.picture_model if index else ""
        local = answerer.removeprefix(LOCAL) if answerer.startswith(LOCAL) else ""
        wanted = (searched, local, judges.clip, self.services.default_detector(), judges.vlm)
        yield from self.services.load_each(filter(None, wanted), stopping)

    def sentences(self) -> TextEncoder:
        """The encoder of sentences, loaded once.

        Raises:
            ModelUnavailableError: its package is missing or changed.
        """
        from models.clip_sentence import SentenceEncoder

        with self._guard:
            if self._encoder is None:
                self._encoder = SentenceEncoder()
            return self._encoder

    def embedder(self, clip: str = DEFAULT_PICTURE_MODEL) -> Embedder:
        """The encoders of retrieval. The loader keeps the models, so that what it lets go is gone.

        Raises:
            ExhibitError: the image-text model cannot be had, or is none.
        """
        return load_embedder(self.services.loader, clip, self.sentences())

    def build(
        self, files: Sequence[tuple[Path, str]], cancel: Event, clip: str = DEFAULT_PICTURE_MODEL
    ) -> Iterator[tuple[Path, Building]]:
        """An index of uploaded files, in a place of its own.

        Args:
            files: where each lies, and what it was called.
            cancel: set by another thread, ends it.
            clip: zoo id of the image-text model; the index is searched with the same ever after.

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
            for state in build_index(corpus, index, self.embedder(clip), cancel):
                yield index, state
        finally:
            shutil.rmtree(corpus.parent, ignore_errors=True)

    def retrieve(self, question: str, source: SourceImage | None, index: Path | None) -> tuple[Evidence, ...]:
        """Evidence of an index; none without one."""
        if index is None:
            return ()
        return self._retriever(index).find(question, source.rgb if source else None, EVIDENCE_SHOWN)

    def find_similar(self, checked: Checked, number: int, index: Path) -> tuple[Image.Image, tuple[Evidence, ...]]:
        """What an index holds that looks like the best region of a claim.

        Returns:
            The region, cut out of the picture at screen size, and the pictures found, best first.

        Raises:
            ExhibitError: the claim has no region, or the index or the model that it was built with cannot be had.
        """
        region = checked.verdicts[number].region_xyxy
        if region is None:
            raise ExhibitError("No region of the picture stands out for this claim; choose another claim.")
        box = _on_photo(checked, region)
        found = self._retriever(index).find_by_region(checked.photo, box, EVIDENCE_SHOWN)
        return checked.photo.crop(_whole_pixels(box)), found

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
        judges: Judges | None = None,
        *,
        finer: bool = False,
    ) -> Checked:
        """Every claim of an answer held against a picture.

        Args:
            source: the picture.
            text: the answer.
            evidence: that it was given from; captions among it are one of the signals.
            judges: who checks; the bundled models where not given.
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
        from rag.verifier import load_verifier

        asked = judges or Judges()
        verifier = load_verifier(
            self.services.loader,
            clip=asked.clip,
            detector=self.services.default_detector(),
            vlm=asked.vlm,
            sentences=self.sentences() if evidence else None,
            domain=asked.domain,
        )
        verdicts = tuple(verifier.verify(source.rgb, claims, evidence=evidence))
        photo = render.fit(source.rgb, PHOTO_SIDE_PX)
        return Checked(photo, source.size_wh, text, verdicts, measure_reliability(verdicts), verifier.note, asked)

    def draw_claim(self, checked: Checked, number: int) -> tuple[Image.Image, str]:
        """The picture under the heat of a claim against its foils, its best region outlined.

        Returns:
            A new RGB picture, and why it bears no heat, where that is so.

        Raises:
            ModelUnavailableError: the image-text model cannot be had.
        """
        verdict = checked.verdicts[number]
        foils = [foil.text for foil in verdict.foils if foil.text != verdict.claim.text][:_MOST_FOILS]
        live = self._reader(checked)
        target = similarity_target(live, verdict.claim.text, foils)
        (found,) = explain_batch(live, [checked.photo], methods=(HEATMAP_METHOD,), targets=(target,))
        problem = found.problems[0].message if found.problems else ""
        photo = _enlarged(checked.photo)
        drawn = render.draw_heatmap(photo, found.heatmaps[0]) if found.heatmaps else photo
        if verdict.region_xyxy is not None:
            drawn = draw_outline(drawn, box_mask(checked.size_wh, verdict.region_xyxy))
        return drawn, problem

    def attribute_words(self, checked: Checked, number: int) -> WordAttribution | None:
        """What each word of a claim adds to its cosine with the picture; None where no model here reads it.

        Raises:
            ExhibitError: the claim is too long, its words have no scores, or the model cannot be had.
        """
        verdict = checked.verdicts[number]
        if not verdict.signals:
            return None
        count = len(find_words(verdict.claim.text))
        if count > MOST_WORDS:
            raise ExhibitError(
                f"The claim has {count} words, and up to {MOST_WORDS} are scored one by one; part it into shorter ones."
            )
        return attribute_claim(self._reader(checked), checked.photo, verdict.claim.text)

    def _reader(self, checked: Checked) -> ImageTextModel:
        """The image-text model that read the claims."""
        return self.embedder(checked.judges.clip).pictures

    def _retriever(self, index: Path) -> Retriever:
        """Over an index, with the models that it was built with."""
        opened = Index.open(index)
        return Retriever(opened, self.embedder(opened.origin.picture_model))

    def _answerer(self, name: str) -> Answerer:
        if name == ENDPOINT and self._endpoint is not None:
            return EndpointAnswerer(self._endpoint)
        if name.startswith(LOCAL) and name in self.answerers():
            live: Any = self.services.live(name.removeprefix(LOCAL))
            return LocalAnswerer(live)
        if name != EXTRACTIVE:
            raise ExhibitError(f"{name!r} answers nothing here; choose among: {', '.join(self.answerers())}.")
        return ExtractiveAnswerer(self.sentences())


def _enlarged(photo: Image.Image) -> Image.Image:
    """A copy at least large enough that an outline hides little of it."""
    factor = max(1.0, LEAST_SIDE_PX / max(photo.size))
    return photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)


def _on_photo(checked: Checked, region: Box) -> Box:
    """A region in pixels of the original, in those of the photo that is kept."""
    across, down = checked.photo.width / checked.size_wh[0], checked.photo.height / checked.size_wh[1]
    return region[0] * across, region[1] * down, region[2] * across, region[3] * down


def _whole_pixels(box: Box) -> tuple[int, int, int, int]:
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def _free(folder: Path, name: str) -> Path:
    """A path in the folder called as the visitor's file; a number goes before the suffix where the name is taken."""
    plain = PurePosixPath(name.replace("\\", "/")).name.lstrip(".")[-120:] or "file"
    wanted = folder / plain
    taken = 1
    while wanted.exists():
        taken += 1
        wanted = folder / f"{Path(plain).stem}-{taken}{Path(plain).suffix}"
    return wanted
