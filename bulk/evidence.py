"""The second pass: the pictures of the short list are examined wholly, each into an evidence bundle."""

from __future__ import annotations

import logging
from pathlib import Path

from bulk.parts import Job
from bulk.results import Run
from bulk.shortlist import Listed, make_shortlist
from bulk.sources import Reader
from explain.examination import DEFAULT_DETECTOR, Settings, examine, measure_faithfulness
from explain.faithfulness import FaithfulnessMeter
from explain.signing import EVIDENCE, MANIFEST
from models.errors import ExhibitError
from models.imaging import read_image
from models.loading import ModelLoader
from models.registry import load_zoo

_LOG = logging.getLogger(__name__)


class EvidenceMaker:
    """Loads its models once and examines one picture of the short list after another.

    Args:
        job: with a choice of pictures.
    """

    def __init__(self, job: Job) -> None:
        if job.choice is None:
            raise ValueError("the job chooses no pictures")
        self.job = job
        self.run = Run(job.folder)
        self.listed = make_shortlist(self.run, job.choice)
        zoo = load_zoo(Path(job.zoo) if job.zoo else None)
        detector = DEFAULT_DETECTOR if DEFAULT_DETECTOR in zoo.specs else None
        self.settings = Settings(task=job.task, models=job.models, detector=detector)
        self.loader = ModelLoader(zoo, max_models=len(job.models) + 1)
        self.meter = FaithfulnessMeter()
        self.reader = Reader()

    def explain(self, number: int) -> str:
        """Examine one picture and keep its bundle, unless it is there.

        Args:
            number: in the short list.

        Returns:
            Why it could not be done; empty when it is.
        """
        listed = self.listed[number]
        target = self.job.folder / EVIDENCE / listed.name
        if (target / MANIFEST).exists():
            return ""
        try:
            self._examine(listed, target)
        except ExhibitError as error:
            if (target / MANIFEST).exists():  # another worker, thought dead, was faster
                return ""
            _LOG.warning("%s: %s", listed.path, error)
            return " ".join(str(error).split())
        return ""

    def _examine(self, listed: Listed, target: Path) -> None:
        (item,) = self.run.items([listed.place])
        source = read_image(self.reader.read(item), name=item.path)
        if source.sha256 != listed.sha256:
            raise ExhibitError(f"{item.path} was changed since it was scored; score it anew in another folder.")
        found = measure_faithfulness(examine(source, self.settings, self.loader), self.loader, self.meter)
        found.save(target, include_original=self.job.keep_originals)
