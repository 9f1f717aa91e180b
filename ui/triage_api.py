"""The endpoint ``triage`` for programs: what the Triage tab finds, as JSON and as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, Final

import gradio as gr

from models.errors import ExhibitError
from ui.services import Services
from ui.triage_runs import ALL, Runs, Sight, score, short_name

Json = dict[str, Any]
# One caller's many pictures at a time; single pictures of others take turns with them model by model.
TRIAGE_QUEUE: Final = "triage"
_TOLD = (
    "error",
    "sha256",
    "verdict",
    "probability",
    "disagreement",
    "out_of_distribution",
    "unfamiliar",
    "c2pa_signature",
    "c2pa_ai_generated",
)


class TriageEndpoint:
    """The endpoint over the shared services.

    Args:
        services: whose models answer.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._runs = Runs(services)

    def triage(
        self,
        files: list[str],
        task: str = "deepfake",
        models: list[str] | None = None,
        label: str = "",
        threshold: float = 0.0,
    ) -> Iterator[tuple[Json, str | None]]:
        """Score many pictures at once and list them, the most probable first.

        Answers while it works, with how far it is; the last answer has the rows. Nothing leaves the machine that
        serves this. For more than a few thousand pictures there is the command `triage.py`.

        Args:
            files: Picture files, or archives (zip, tar) of pictures.
            task: The question, one of the tasks that the endpoint `models` lists, e.g. "deepfake".
            models: Ids from the endpoint `models`; empty for the ones that are ready on this machine.
            label: What is looked for, e.g. "fake"; empty for the models' first label.
            threshold: Least probability of `label` of the listed rows, in [0, 1]; rows that failed have none and are
                listed in any case.

        Returns:
            `done` of `images` pictures scored, `failed` of them in vain; with the last answer also `label` and `rows`
            (name, error, sha256, verdict, probability, disagreement, out_of_distribution, unfamiliar, c2pa_signature,
            c2pa_ai_generated). A verdict is not to be believed where `out_of_distribution` is true: the picture is
            unlike those that the models in `unfamiliar` learned from. Further a zip file with all rows and columns
            (rows.parquet, rows.csv) and summary.html.
        """
        chosen = tuple(models or self._services.default_models(task))
        latest = None
        for latest in score(self._services, "en", [Path(file) for file in files or ()], task, chosen, Event()):
            yield {"done": latest[1].done, "images": latest[1].count, "failed": None, "label": None, "rows": None}, None
        if latest is None:
            return
        folder, at = latest
        wanted = label or self._runs.labels(folder)[0]
        table = self._runs.select(folder, Sight(label=self._known(folder, wanted), which=ALL)).to_pylist()
        rows = [
            {"name": short_name(row["path"])} | {name: row[name] for name in _TOLD}
            for row in table
            if row["error"] or row["probability"] >= threshold
        ]
        failed = sum(row["error"] is not None for row in table)
        found: Json = {"done": at.done, "images": at.count, "failed": failed, "label": wanted, "rows": rows}
        yield found, str(self._runs.pack(folder, task))

    def _known(self, folder: Path, label: str) -> str:
        labels = self._runs.labels(folder)
        if label not in labels:
            raise ExhibitError(f"there is no label {label!r}; choose one of {', '.join(labels)}.")
        return label


def create_triage_parts(services: Services) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs of the endpoint."""
    known = [spec.id for task in services.tasks for spec in services.zoo.for_task(task)]
    inputs = [
        gr.File(None, label="files", file_count="multiple", type="filepath"),
        gr.Dropdown(list(services.tasks), value=services.tasks[0], allow_custom_value=True, label="task"),
        gr.Dropdown(known, value=[], multiselect=True, allow_custom_value=True, label="models"),
        gr.Textbox("", label="label"),
        gr.Number(0.0, label="threshold"),
    ]
    return inputs, [gr.JSON(label="findings"), gr.File(label="results")]
