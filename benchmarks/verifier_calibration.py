"""Calibrate the verifier for an image-text model: the fusion for photographs, and head and fusion for drawn scenes.

python -m benchmarks.verifier_calibration
python -m benchmarks.verifier_calibration --clip clip-vit-large --domain photographs

Writes ``rag/calibrations/CLIP.DOMAIN.json``, and the head beside it. Seeds and pictures are other ones than those that
``benchmarks.verifier`` measures on, except for the captions: there it fits anew on four fifths of the photographs each
time and measures on the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.verifier_data import (
    Asked,
    Photo,
    SceneLook,
    ask_captions,
    find_fillers,
    look_at_scenes,
    read_photos,
    to_sample,
)
from models.clip import ImageTextModel
from models.clip_sentence import SentenceEncoder
from models.detector import Detector
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.registry import load_zoo
from rag.fusion import CALIBRATIONS, TRUE, Fusion, fit_fusion
from rag.probe import Probe, ProbeSettings, fit_probe, save_probe
from rag.reading import find_reader
from rag.signals import SIGNALS
from rag.strangers import Strangers, save_strangers
from rag.verifier import DOMAINS, Verifier

CAPTIONS = Path("../shared/data/captions")
SCENES_SEED, SCENES = 101, 4000
FUSION_SHARE = 0.25  # of the scenes: those that the head did not learn from, so that its log-odds are honest
TARGET_PRECISION = 0.9
STRANGERS = 650  # photographs, and as many captions
GENERAL = tuple(name for name in SIGNALS if name not in ("vqa", "probe"))


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate and store; exit 2 with one line where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifier_calibration", description=main.__doc__)
    parser.add_argument("--clip", default="bundled-openclip", help="zoo id of the image-text model")
    parser.add_argument("--domain", choices=DOMAINS, action="append", help="only this kind of pictures")
    parser.add_argument("--scenes", type=int, default=SCENES, help="drawn scenes to learn from")
    options = parser.parse_args(argv)
    try:
        for domain in options.domain or DOMAINS:
            verifier = open_verifier(options.clip, sentences=domain == "photographs")
            if domain == "photographs":
                photos, corpus = captioned()
                beside = with_strangers(verifier, corpus)
                fusion = fit_photographs(
                    verifier.clip,
                    ask_captions(beside, photos, corpus),
                    strangers=f"{options.clip}.photographs.strangers.safetensors",
                )
                _store(fusion, None, beside.strangers)
            else:
                split = round(options.scenes * (1 - FUSION_SHARE))
                # The head learns from vectors alone; reading takes longer than they do.
                unread = Verifier(verifier.clip, detector=verifier.detector)
                learned = list(look_at_scenes(unread, SCENES_SEED, range(split)))
                weighed = list(look_at_scenes(verifier, SCENES_SEED, range(split, options.scenes)))
                _store(*fit_casework(verifier, learned, weighed))
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def open_verifier(clip: str, *, sentences: bool, detector: bool = True) -> Verifier:
    """A verifier without calibration, from models at hand.

    Raises:
        ExhibitError: ``clip`` is no image-text model, or cannot be had.
    """
    loader = ModelLoader(load_zoo(), offline=True, device="cpu")
    live, finder = loader.load(clip), loader.load("bundled-yolov8n") if detector else None
    if not isinstance(live, ImageTextModel) or not isinstance(finder, Detector | None):
        raise ExhibitError(f"{clip} is no image-text model; choose one of kind clip")
    reader, missing = find_reader()
    if missing:
        raise ExhibitError(missing)
    return Verifier(live, detector=finder, reader=reader, sentences=SentenceEncoder() if sentences else None)


def captioned() -> tuple[list[Any], list[Any]]:
    """Photographs that the bundled model has not learned from, and those whose captions stand for an index.

    Raises:
        ExhibitError: they are not at hand.
    """
    files = [CAPTIONS / f"flickr_{part}.parquet" for part in ("validation", "train")]
    for file in files:
        if not file.is_file():
            raise ExhibitError(f"{file}: there is no such file; captions of photographs are needed")
    return read_photos(files[0]), read_photos(files[1])


def fit_photographs(clip: ImageTextModel, asked: Sequence[Asked], **more: Any) -> Fusion:  # noqa: ANN401
    """The fusion for photographs from true, foreign and replaced captions."""
    kinds = {kind: sum(one.kind == kind for one in asked) for kind in ("true", "foreign", "replaced")}
    return fit_fusion(
        [one.signals.values for one in asked],
        [one.kind for one in asked],
        names=GENERAL,
        target_precision=TARGET_PRECISION,
        clip=clip.spec.id,
        weights_sha256=clip.status.weights_sha256,
        domain="photographs",
        about="Captions of Flickr8k photographs: true, of other photographs, and with one word replaced.",
        data={"photographs": len({one.picture for one in asked}), "claims": kinds},
        **more,
    )


def fit_casework(
    verifier: Verifier,
    learned: Sequence[SceneLook],
    weighed: Sequence[SceneLook],
    settings: ProbeSettings | None = None,
) -> tuple[Fusion, Probe]:
    """Head and fusion for drawn scenes: the head learns from some of them, the fusion weighs it on the others."""
    chosen = settings or ProbeSettings()
    about = {
        "clip": verifier.clip.spec.id,
        "clip_weights_sha256": verifier.clip.status.weights_sha256,
        "made_by": "benchmarks.verifier_calibration on training.scenes: generated pictures, no photographs",
        "scenes_seed": SCENES_SEED,
        "scenes": len(learned),
        "settings": vars(chosen),
    }
    fillers = find_fillers(learned)
    samples = [to_sample(scene, verifier, fillers, seed) for seed, scene in enumerate(learned)]
    probe = fit_probe(samples, chosen, about)
    rows, truths = ask_scenes(replace_probe(verifier, probe), weighed)
    fusion = fit_fusion(
        [row.values for row in rows],
        [TRUE if truth else "changed" for truth in truths],
        names=(*GENERAL, "probe"),
        target_precision=TARGET_PRECISION,
        clip=verifier.clip.spec.id,
        weights_sha256=verifier.clip.status.weights_sha256,
        domain="casework",
        about="True claims about generated scenes of drug cases, and the same with one thing changed.",
        data={"scenes_seed": SCENES_SEED, "scenes_of_the_head": len(learned), "scenes": len(weighed)},
        probe=f"{verifier.clip.spec.id}.casework.safetensors",
    )
    return fusion, probe


def with_strangers(verifier: Verifier, corpus: Sequence[Photo]) -> Verifier:
    """The same verifier with the photographs of a corpus, and a caption of each, as strangers."""
    strangers = Strangers(
        verifier.clip.embed_images([photo.open() for photo in corpus[:STRANGERS]]),
        verifier.clip.embed_texts([photo.captions[0] for photo in corpus[:STRANGERS]]),
    )
    return Verifier(verifier.clip, strangers=strangers, detector=verifier.detector, sentences=verifier.sentences)


def replace_probe(verifier: Verifier, probe: Probe | None) -> Verifier:
    """The same verifier with another head."""
    return Verifier(
        verifier.clip,
        probe=probe,
        detector=verifier.detector,
        reader=verifier.reader,
        sentences=verifier.sentences,
    )


def ask_scenes(verifier: Verifier, scenes: Sequence[SceneLook]) -> tuple[list[Any], list[bool]]:
    """Signals of every true and false claim about scenes, and whether it is true."""
    rows: list[Any] = []
    truths: list[bool] = []
    for scene in scenes:
        rows += verifier.measure(scene.look, (*scene.true, *scene.false))
        truths += [True] * len(scene.true) + [False] * len(scene.false)
    return rows, truths


def _store(fusion: Fusion, probe: Probe | None, strangers: Strangers | None = None) -> None:
    CALIBRATIONS.mkdir(exist_ok=True)
    if strangers is not None:
        save_strangers(strangers, CALIBRATIONS / fusion.strangers)
    if probe is not None:
        save_probe(probe, CALIBRATIONS / fusion.probe)
    file = CALIBRATIONS / f"{fusion.clip}.{fusion.domain}.json"
    file.write_text(json.dumps(fusion.model_dump(), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{file}: {len(fusion.signals)} signals\n")


if __name__ == "__main__":
    sys.exit(main())
