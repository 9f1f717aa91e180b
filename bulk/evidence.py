"""The second pass: the pictures of the short list are examined wholly, each into an evidence bundle."""

from __future__ import annotations

import logging
from pathlib import Path

from bulk.claims import claims_about
from bulk.parts import Job
from bulk.results import Run
from bulk.shortlist import Listed, make_shortlist
from bulk.sources import Reader
from explain.claims_asking import ClaimChecker
from explain.examination import DEFAULT_DETECTOR, Settings, examine, measure_faithfulness
from explain.faithfulness import FaithfulnessMeter
from explain.replay import read_manifest
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
        # Beside the models the detector, and with claims the image-text model.
        self.loader = ModelLoader(zoo, max_models=len(job.models) + 2)
        self.meter = FaithfulnessMeter()
        self.checker = ClaimChecker(self.loader, job.domain)
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
        try:
            claims = claims_about(listed.path, self.job.claims)
            if (target / MANIFEST).exists():
                return _compare_claims(target, claims)
            return " ".join(self._examine(listed, target, claims).split())
        except ExhibitError as error:
            if (target / MANIFEST).exists():  # another worker, thought dead, was faster
                return ""
            _LOG.warning("%s: %s", listed.path, error)
            return " ".join(str(error).split())

    def _examine(self, listed: Listed, target: Path, claims: list[str]) -> str:
        (item,) = self.run.items([listed.place])
        source = read_image(self.reader.read(item), name=item.path)
        if source.sha256 != listed.sha256:
            raise ExhibitError(f"{item.path} was changed since it was scored; score it anew in another folder.")
        found = measure_faithfulness(examine(source, self.settings, self.loader), self.loader, self.meter)
        found = self.checker.check(found, claims)
        found.save(target, include_original=self.job.keep_originals)
        return found.problems[-1].message if claims and found.claims is None else ""


def _compare_claims(bundle: Path, claims: list[str]) -> str:
    """Why a bundle that is there does not do; empty when it does. Evidence is never overwritten."""
    manifest = read_manifest(bundle)
    checked = [one["claim"] for one in manifest["claims"]["claims"]] if manifest["claims"] else []
    if not claims or checked == claims:
        return ""
    failed = [problem["message"] for problem in manifest["problems"] if problem["subject"] == "claims"]
    return failed[0] if failed else f"{bundle} was made with other claims, or none; move it away to have these checked."
