"""The verifier: how well claims are told apart, what a check costs, and how fast evidence is found.

python -m benchmarks.verifier
python -m benchmarks.verifier --only casework cost
python -m benchmarks.verifier --json --save
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from benchmarks.report import Figure, add_options, interleaved, median, report
from benchmarks.verifier_calibration import captioned, open_verifier, with_strangers
from benchmarks.verifier_claims import caption_figures, casework_figures, object_figures
from benchmarks.verifier_data import Photo, ask_captions, look_at_scenes
from benchmarks.verifier_search import search_figures
from models.clip import ImageTextModel
from models.intervals import estimate
from rag.fusion import CALIBRATIONS, find_fusion
from rag.looks import regions_of
from rag.probe import load_probe
from rag.schema import Claim
from rag.signals import claim_texts
from rag.strangers import load_strangers
from rag.verifier import Verifier

CLIP = "bundled-openclip"
PARTS = ("recall", "captions", "objects", "casework", "cost", "search")
SCENES_SEED, SCENES = 202, 200
ANSWER = (
    "Two brown dogs run over the grass.",
    "A man in a red shirt stands behind a fence.",
    "Three children play with a ball near the water.",
    "A small boat lies on the beach.",
    "The sky is cloudy.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(
        description="Claims told apart, the cost of a check, retrieval against exact search."
    )
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--scenes", type=int, default=SCENES, metavar="N", help="drawn scenes to measure on")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    verifier = open_verifier(CLIP, sentences=True)
    photos, corpus = captioned()
    parts: dict[str, Callable[[], Sequence[Figure]]] = {
        "recall": lambda: [_recall(verifier.clip, photos)],
        "captions": lambda: caption_figures(verifier, ask_captions(with_strangers(verifier, corpus), photos, corpus)),
        "objects": lambda: object_figures(verifier),
        "casework": lambda: _casework(verifier, options.scenes),
        "cost": lambda: [_cost(verifier, photos[0].open())],
        "search": lambda: search_figures(verifier.clip, [photo.open() for photo in photos]),
    }
    figures = [figure for part in PARTS if part in options.only for figure in parts[part]()]
    report("verifier", figures, options, partial=set(options.only) != set(PARTS))
    return 0


def _recall(clip: ImageTextModel, photos: Sequence[Photo]) -> Figure:
    """How often the photograph that a caption belongs to is the first of all."""
    images = clip.embed_images([photo.open() for photo in photos])
    texts = clip.embed_texts([caption for photo in photos for caption in photo.captions])
    own = np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos])
    cosines = texts @ images.T
    first = (cosines >= cosines[np.arange(len(own)), own][:, None]).sum(1) == 1
    found = estimate(
        lambda weights: {"value": float(np.average(first, weights=weights[own]))}, len(photos), resamples=300
    )["value"]
    return Figure(
        "recall_at_1_flickr",
        found["value"] or 0.0,
        0.34,
        "higher",
        f"{clip.spec.id}: {len(own)} captions, each seeking its photograph among {len(photos)} that it never saw "
        f"(95 % interval {found['low']:.3f} to {found['high']:.3f})",
    )


def _casework(verifier: Verifier, scenes: int) -> list[Figure]:
    found = find_fusion(verifier.clip.status.weights_sha256, "casework")
    if found is None:
        raise FileNotFoundError(
            f"{CALIBRATIONS}: {CLIP} has no calibration; run python -m benchmarks.verifier_calibration"
        )
    fusion, file = found
    calibrated = Verifier(
        verifier.clip,
        fusion,
        probe=load_probe(file.with_name(fusion.probe)),
        detector=verifier.detector,
        reader=verifier.reader,
    )
    return casework_figures(calibrated, list(look_at_scenes(calibrated, SCENES_SEED, range(scenes))), SCENES_SEED)


def _cost(verifier: Verifier, image: Image.Image) -> Figure:
    """A whole check, detector included, over the encodings it cannot do without; nothing is remembered between runs."""
    claims = [Claim(text, 0, len(text)) for text in ANSWER]
    texts = [text for claim in ANSWER for text in claim_texts(claim).all]
    found = verifier.detector.detect([image])[0] if verifier.detector else None
    boxes = regions_of(image.size, found)
    stored = find_fusion(verifier.clip.status.weights_sha256, "photographs")
    fusion = stored[0] if stored else None
    strangers = load_strangers(stored[1].with_name(stored[0].strangers)) if stored and stored[0].strangers else None

    def fresh() -> ImageTextModel:
        clip = verifier.clip
        return ImageTextModel(clip.spec, clip.status, clip.towers, clip.answers)

    def bare() -> None:
        clip = fresh()
        clip.embed_images([image])
        clip.embed_regions(image, boxes)
        clip.embed_texts(texts)

    def check() -> None:
        Verifier(fresh(), fusion, strangers=strangers, detector=verifier.detector).verify(image, claims)

    table = interleaved({"bare": bare, "check": check}, rounds=5)
    seconds = {name: median([times[name] for times in table]) for name in table[0]}
    return Figure(
        "five_claims_over_encoding",
        median([times["check"] / times["bare"] for times in table]),
        1.5,
        "lower",
        f"an answer of five claims checked, detector included, over encoding the picture, its {len(boxes)} regions and "
        f"the {len(texts)} texts (check {1000 * seconds['check']:.0f} ms, bare {1000 * seconds['bare']:.0f} ms)",
    )


if __name__ == "__main__":
    sys.exit(main())
