"""Verdicts by hand-computed numbers."""

import pytest

from models.ensemble import combine
from models.errors import ExhibitError
from models.schema import LoadState, ModelStatus, Prediction


def said(model_id, fake, *, state=LoadState.FINE_TUNED, source="", sha="", labels=("fake", "real")):
    shares = dict(zip(labels, (fake, 1 - fake), strict=True))
    status = ModelStatus(state, source or model_id, weights_sha256=sha)
    return Prediction(model_id, max(shares, key=shares.__getitem__), shares, shares, 0.1, status)


def test_without_measurements_models_weigh_alike():
    verdict = combine([said("a", 0.9), said("b", 0.6), said("c", 0.2)], {})
    assert verdict.label == "fake"
    assert verdict.probabilities == pytest.approx({"fake": 1.7 / 3, "real": 1.3 / 3})
    assert verdict.agreement == pytest.approx(2 / 3)
    assert verdict.dissenters == ("c",)
    assert verdict.spread == pytest.approx(0.7)
    assert verdict.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})


def test_a_model_weighs_as_much_as_it_is_better_than_chance():
    verdict = combine([said("good", 0.1), said("poor", 0.9)], {"good": 0.9, "poor": 0.6})
    assert verdict.weights == pytest.approx({"good": 0.8, "poor": 0.2})
    assert verdict.label == "real"
    assert verdict.probabilities["real"] == pytest.approx(0.8 * 0.9 + 0.2 * 0.1)
    assert verdict.dissenters == ("poor",)
    assert verdict.agreement == pytest.approx(0.8)


def test_an_unmeasured_model_weighs_as_the_others_do_on_average():
    verdict = combine([said("a", 0.5), said("b", 0.5), said("c", 0.5)], {"a": 0.9, "b": 0.7, "c": None})
    assert verdict.weights == pytest.approx({"a": 0.4 / 0.9, "b": 0.2 / 0.9, "c": 0.3 / 0.9})


def test_a_coin_weighs_nothing_and_coins_alone_weigh_alike():
    verdict = combine([said("coin", 0.99), said("good", 0.3)], {"coin": 0.45, "good": 0.9})
    assert verdict.weights == {"coin": 0.0, "good": 1.0}
    assert verdict.probabilities["fake"] == pytest.approx(0.3)
    coins = combine([said("a", 0.8), said("b", 0.4)], {"a": 0.5, "b": 0.5})
    assert coins.weights == {"a": 0.5, "b": 0.5}


def test_chance_is_one_in_the_number_of_labels():
    def four(model_id, *shares):
        labelled = dict(zip("abcd", shares, strict=True))
        status = ModelStatus(LoadState.FINE_TUNED, model_id)
        return Prediction(model_id, max(labelled, key=labelled.__getitem__), labelled, labelled, 0.1, status)

    verdict = combine([four("x", 0.7, 0.1, 0.1, 0.1), four("y", 0.1, 0.1, 0.1, 0.7)], {"x": 0.5, "y": 1.0})
    assert verdict.weights == pytest.approx({"x": 0.25, "y": 0.75})
    assert verdict.label == "d"


def test_the_same_weights_behind_several_ids_are_one_witness():
    same = {"state": LoadState.BUNDLED, "source": "bundled-vit", "sha": "s"}
    models = [said("bundled-vit", 0.9, **same), said("hub-a", 0.9, **same), said("hub-b", 0.9, **same)]
    verdict = combine([*models, said("other", 0.2)], {"bundled-vit": 0.8, "other": 0.8, "hub-a": 0.99, "hub-b": 0.99})
    assert verdict.weights["other"] == pytest.approx(0.5)
    assert sum(verdict.weights[one.model_id] for one in models) == pytest.approx(0.5)
    assert verdict.probabilities["fake"] == pytest.approx(0.55)
    assert verdict.agreement == pytest.approx(0.5)


def test_a_stand_in_weighs_by_its_own_accuracy():
    stand_in = said("hub", 0.9, state=LoadState.BUNDLED, source="bundled-vit", sha="v")
    verdict = combine([stand_in, said("b", 0.1)], {"hub": 0.99, "bundled-vit": 0.6, "b": 0.9})
    assert verdict.weights == pytest.approx({"hub": 0.2, "b": 0.8})
    base = said("hub", 0.9, state=LoadState.BASE, source="org/base@1")
    assert combine([base, said("b", 0.1)], {"hub": 0.99, "b": 0.9}).weights == pytest.approx({"hub": 0.5, "b": 0.5})


def test_one_model_agrees_with_itself_and_a_tie_goes_to_its_first_label():
    verdict = combine([said("a", 0.5)], {"a": 0.9})
    assert (verdict.label, verdict.agreement, verdict.dissenters, verdict.spread) == ("fake", 1.0, (), 0.0)


def test_labels_may_come_in_another_order():
    verdict = combine([said("a", 0.9), said("b", 0.8, labels=("real", "fake"))], {})
    assert list(verdict.probabilities) == ["fake", "real"]
    assert verdict.probabilities["fake"] == pytest.approx((0.9 + 0.2) / 2)


def test_models_of_different_tasks_are_refused_by_name():
    with pytest.raises(ExhibitError, match="a answers with fake, real but b with cat, dog; choose models of one task"):
        combine([said("a", 0.5), said("b", 0.5, labels=("cat", "dog"))], {})


def test_nothing_and_the_same_model_twice_are_mistakes_of_the_caller():
    with pytest.raises(ValueError, match="at least one"):
        combine([], {})
    with pytest.raises(ValueError, match="only once"):
        combine([said("a", 0.5), said("a", 0.5)], {})
