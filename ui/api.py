"""The page's actions for programs: stable endpoints for HTTP and ``gradio_client``, and the tools of ``--mcp``.

Their docstrings are what a program, or a language model, reads about them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from explain.catalog import CATALOG
from explain.whatif import FILLS
from ui.api_describe import Json, describe_holding
from ui.api_parts import list_ids, name_choice
from ui.compare import COMPARING_AT_ONCE, COMPARING_QUEUE
from ui.compare_api import CompareEndpoint
from ui.errors import explain_error
from ui.examine_api import ExamineEndpoints, create_examine_inputs, create_heatmap_inputs
from ui.inventory import take_inventory
from ui.services import DETECTION, MODELS_AT_ONCE, MODELS_QUEUE, Services
from ui.text import DEFAULT_LANGUAGE
from ui.triage_api import TRIAGE_QUEUE, TriageEndpoint, create_triage_parts
from ui.verify_api import VerifyEndpoints, create_verify_inputs
from ui.verify_desk import VerifyDesk
from ui.whatif_api import WhatIfEndpoint


def add_endpoints(services: Services, desk: VerifyDesk) -> None:
    """The public endpoints, inside the Blocks: each is named as the function that answers."""
    with gr.Column(visible=False):
        _add_examine(services)
        _add_models(services)
        _add_compare(services)
        _add_whatif(services)
        _add_triage(services)
        _add_verify(desk)


def _add_examine(services: Services) -> None:
    endpoints = ExamineEndpoints(services)
    gr.Button().click(
        _speak_plainly(endpoints.examine),
        create_examine_inputs(services),
        [gr.JSON(label="findings"), gr.File(label="overlays", file_count="multiple"), gr.File(label="bundle")],
        api_name="examine",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )
    gr.Button().click(
        _speak_plainly(endpoints.heatmap),
        create_heatmap_inputs(services),
        [gr.Image(label="overlay", format="png"), gr.JSON(label="map")],
        api_name="heatmap",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )


def _add_models(services: Services) -> None:
    def models() -> list[Json]:
        """List the models, the question that each answers, and what would serve for it on this machine.

        Returns:
            One entry per model: id, name, task, kind and family, licence, access (public, gated or private), what it
            was trained on, measured accuracy, a vision-language model's own question, megabytes to download and in
            memory, whether it is loaded, and its status (fine-tuned, base, bundled or unavailable) with the reason, the
            remedy and, once loaded, the SHA-256 of its weights.
        """
        holdings = take_inventory(services).holdings
        # Detectors last: a caller needs one of the questions.
        ordered = sorted(holdings, key=lambda task: task == DETECTION)
        return [describe_holding(holding) for task in ordered for holding in holdings[task]]

    gr.Button().click(_speak_plainly(models), [], [gr.JSON(label="models")], api_name="models", queue=False)


def _add_compare(services: Services) -> None:
    gr.Button().click(
        _speak_plainly(CompareEndpoint(services).compare),
        [
            name_choice("reports", [saved.key for saved in services.reports.list_saved()], []),
            gr.File(None, label="files", file_count="multiple", type="filepath"),
        ],
        [gr.JSON(label="comparison")],
        api_name="compare",
        concurrency_id=COMPARING_QUEUE,
        concurrency_limit=COMPARING_AT_ONCE,
    )


def _add_whatif(services: Services) -> None:
    gr.Button().click(
        _speak_plainly(WhatIfEndpoint(services).whatif),
        [
            gr.File(label="image", type="filepath"),
            name_choice("task", services.tasks, services.tasks[0]),
            name_choice("models", list_ids(services, services.tasks), []),
            gr.JSON(label="box"),
            gr.Number(0.1, label="hottest"),
            name_choice("model", ("", *list_ids(services, services.tasks)), ""),
            name_choice("method", CATALOG, "gradcampp"),
            name_choice("fill", FILLS, "blur"),
            gr.Checkbox(value=False, label="evidence"),
        ],
        [gr.JSON(label="changes"), gr.File(label="pictures", file_count="multiple")],
        api_name="whatif",
        concurrency_id=MODELS_QUEUE,
        concurrency_limit=MODELS_AT_ONCE,
    )


def _add_triage(services: Services) -> None:
    answer, (inputs, outputs) = _speak_plainly(TriageEndpoint(services).triage), create_triage_parts(services)
    gr.Button().click(answer, inputs, outputs, api_name="triage", concurrency_id=TRIAGE_QUEUE, concurrency_limit=1)


def _add_verify(desk: VerifyDesk) -> None:
    endpoints = VerifyEndpoints(desk)
    running: dict[str, Any] = {"concurrency_id": MODELS_QUEUE, "concurrency_limit": MODELS_AT_ONCE}
    asked, claimed = create_verify_inputs(desk)
    gr.Button().click(_speak_plainly(endpoints.ask), asked, [gr.JSON(label="answer")], api_name="ask", **running)
    outputs = [gr.JSON(label="claims"), gr.File(label="pictures", file_count="multiple")]
    gr.Button().click(_speak_plainly(endpoints.verify), claimed, outputs, api_name="verify", **running)


def _speak_plainly(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint with every error as the one line that a caller can act on."""
    if inspect.isgeneratorfunction(endpoint):

        @functools.wraps(endpoint)
        def stepwise(*args: Any, **kwargs: Any) -> Iterator[Any]:  # noqa: ANN401 - any endpoint
            try:
                yield from endpoint(*args, **kwargs)
            except Exception as error:
                raise gr.Error(explain_error(error, DEFAULT_LANGUAGE), print_exception=False) from error

        return stepwise

    @functools.wraps(endpoint)
    def at_once(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any endpoint
        try:
            return endpoint(*args, **kwargs)
        except Exception as error:
            raise gr.Error(explain_error(error, DEFAULT_LANGUAGE), print_exception=False) from error

    return at_once
