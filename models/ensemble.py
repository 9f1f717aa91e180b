"""Several predictions of one image to one verdict that keeps its disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.errors import ExhibitError
from models.schema import LoadState, Prediction, Verdict

__all__ = ["combine"]


def combine(predictions: Sequence[Prediction], weights: Mapping[str, float | None]) -> Verdict:
    """The weighted mean of what several models say of one image.

    A model weighs as much as its measured accuracy lies above chance, ``accuracy - 1 / labels``: a coin weighs nothing.
    A model without a measurement weighs as much as the others do on average. Where something stands in for a model, the
    stand-in's accuracy counts. Models backed by the same weights are one witness: together they weigh as one.

    A picture unlike anything the models with half of the weight have seen gets no confident verdict, however sure they
    are: far from what it learned, a network's confidence means nothing (Hein et al. 2019, arXiv:1812.05720).

    Args:
        predictions: one per model, all with the same labels.
        weights: zoo id to measured accuracy in [0, 1], or ``None``; may hold more ids than answered.

    Returns:
        The verdict; ``agreement`` and ``weights`` are by weight, equal where no model is better than chance.

    Raises:
        ExhibitError: the models answer with different labels.
        ValueError: there is no prediction, or a model is given twice.
    """
    if not predictions:
        raise ValueError("a verdict needs at least one prediction")
    if len({prediction.model_id for prediction in predictions}) < len(predictions):
        raise ValueError("a model may speak only once")
    labels = tuple(predictions[0].probabilities)
    for prediction in predictions:
        if set(prediction.probabilities) != set(labels):
            raise ExhibitError(
                f"{predictions[0].model_id} answers with {', '.join(labels)} but {prediction.model_id} with "
                f"{', '.join(prediction.probabilities)}; choose models of one task, or rename labels in the zoo file"
            )
    shares = _shares(predictions, weights, 1 / len(labels))
    mean = {label: sum(shares[one.model_id] * one.probabilities[label] for one in predictions) for label in labels}
    label = max(labels, key=mean.__getitem__)
    given = [prediction.probabilities[label] for prediction in predictions]
    dissenters = tuple(prediction.model_id for prediction in predictions if prediction.label != label)
    unfamiliar = tuple(one.model_id for one in predictions if one.novelty is not None and one.novelty.unfamiliar)
    return Verdict(
        label=label,
        probabilities=mean,
        agreement=sum(shares[one.model_id] for one in predictions if one.label == label),
        dissenters=dissenters,
        spread=max(given) - min(given),
        weights=shares,
        unfamiliar=unfamiliar,
        confident=sum(shares[model_id] for model_id in unfamiliar) < 0.5,
    )


def _shares(predictions: Sequence[Prediction], weights: Mapping[str, float | None], chance: float) -> dict[str, float]:
    """Each model's share of the verdict, summing to 1."""
    witnesses: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        status = prediction.status
        witnesses.setdefault(status.weights_sha256 or status.loaded_from or prediction.model_id, []).append(prediction)
    known: dict[str, float] = {}
    for witness, group in witnesses.items():
        accuracies = [value for value in (_accuracy(one, weights) for one in group) if value is not None]
        if accuracies:
            known[witness] = max(0.0, min(accuracies) - chance)
    usual = sum(known.values()) / len(known) if known else 1.0
    parts = {witness: known.get(witness, usual) for witness in witnesses}
    total = sum(parts.values())
    if total == 0:
        parts, total = dict.fromkeys(witnesses, 1.0), float(len(witnesses))
    shares = {
        one.model_id: parts[witness] / total / len(group) for witness, group in witnesses.items() for one in group
    }
    return {prediction.model_id: shares[prediction.model_id] for prediction in predictions}


def _accuracy(prediction: Prediction, weights: Mapping[str, float | None]) -> float | None:
    """The measured accuracy of what really answered."""
    status = prediction.status
    if status.state is LoadState.BUNDLED and status.loaded_from != prediction.model_id:
        return weights.get(status.loaded_from)
    return None if status.state is LoadState.BASE else weights.get(prediction.model_id)
