"""Targets: the right scalar, the right name, and an error that lists the labels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from explain.targets import ClassLogit, LabelMargin, LogitMargin, PredictedLogit, default_target, same_margin
from models.errors import IncompatibleMethodError
from models.schema import LoadState, ModelStatus, Prediction

LABELS = ("fake", "real", "unsure")
OUTPUTS = SimpleNamespace(logits=torch.tensor([[1.0, 4.0, 2.0], [8.0, 3.0, 5.0]]))


@pytest.mark.parametrize(
    ("target", "name", "values"),
    [
        (ClassLogit("real", LABELS), "logit:real", [4, 3]),
        (ClassLogit(2, LABELS), "logit:unsure", [2, 5]),
        (LogitMargin("fake", "real", LABELS), "margin:fake-real", [-3, 5]),
        (LogitMargin(2, "fake", LABELS), "margin:unsure-fake", [1, -3]),
        (PredictedLogit(LABELS), "logit:predicted", [4, 8]),
        (LabelMargin(LABELS), "margin:predicted", [4 - 2, 8 - 5]),
        (LabelMargin(LABELS, "real"), "margin:real", [4 - 2, 3 - 8]),
        (LabelMargin(LABELS, 0), "margin:fake", [1 - 4, 8 - 5]),
    ],
)
def test_a_target_names_itself_and_gives_one_scalar_per_image(target, name, values):
    assert target.name == name
    assert target(OUTPUTS).tolist() == values


def test_the_predicted_label_is_said_for_each_image():
    assert PredictedLogit(LABELS).names(OUTPUTS) == ("logit:real", "logit:fake")
    assert ClassLogit("fake", LABELS).names(OUTPUTS) == ("logit:fake", "logit:fake")


def test_a_tie_is_explained_by_one_label_alone():
    logits = torch.tensor([[2.0, 2.0]], requires_grad=True)
    PredictedLogit(("a", "b"))(SimpleNamespace(logits=logits)).sum().backward()
    assert sorted(logits.grad[0].tolist()) == [0, 1]


def test_a_margin_names_the_runner_up_of_each_image():
    assert LabelMargin(LABELS).names(OUTPUTS) == ("margin:real-unsure", "margin:fake-unsure")
    assert LabelMargin(LABELS, "real").names(OUTPUTS) == ("margin:real-unsure", "margin:real-fake")


def test_a_margin_held_fast_asks_another_model_for_the_same():
    scores = dict(zip(LABELS, (1.0, 4.0, 2.0), strict=True))
    said = Prediction("m", "real", {}, scores, 0.1, ModelStatus(LoadState.FINE_TUNED))
    assert same_margin(said) == LogitMargin("real", "unsure", LABELS)
    assert same_margin(said).name == LabelMargin(LABELS).names(OUTPUTS)[0]
    assert same_margin(said, "fake") == LogitMargin("fake", "real", LABELS)
    with pytest.raises(IncompatibleMethodError, match="labels are fake, real, unsure"):
        same_margin(said, "banana")


def test_the_gradient_of_a_margin_reaches_two_labels_and_is_opposite_there():
    for logits, expected in [([[2.0, 2.0, 0.0]], [1, -1, 0]), ([[0.0, -float("inf"), 3.0]], [-1, 0, 1])]:
        scores = torch.tensor(logits, requires_grad=True)
        LabelMargin(LABELS)(SimpleNamespace(logits=scores)).sum().backward()
        assert scores.grad[0].tolist() == expected


def test_a_margin_without_a_rival_is_refused():
    with pytest.raises(IncompatibleMethodError, match="1 label; give it two"):
        LabelMargin(("only",))


def test_vision_language_models_are_explained_by_margins_and_classifiers_by_scores():
    def live(kind):
        return SimpleNamespace(spec=SimpleNamespace(kind=kind), labels=LABELS)

    assert default_target(live("vlm")) == LabelMargin(LABELS)
    assert default_target(live("vlm"), "fake") == LabelMargin(LABELS, "fake")
    assert default_target(live("classifier")) == PredictedLogit(LABELS)
    assert default_target(live("classifier"), "fake") == ClassLogit("fake", LABELS)


@pytest.mark.parametrize("label", ["Fake", 3, -1, ""])
def test_an_unknown_label_is_refused_with_the_known_ones(label):
    builds = (
        lambda: ClassLogit(label, LABELS),
        lambda: LogitMargin("fake", label, LABELS),
        lambda: LabelMargin(LABELS, label),
    )
    for build in builds:
        with pytest.raises(IncompatibleMethodError, match="labels are fake, real, unsure"):
            build()


def test_a_margin_over_itself_is_refused():
    with pytest.raises(IncompatibleMethodError, match="always 0"):
        LogitMargin("fake", 0, LABELS)
