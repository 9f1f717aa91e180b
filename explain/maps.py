"""Maps of a picture by any methods of the catalog: those that share one pass from it, the others from their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from explain.attribution_maps import attribute_picture
from explain.cam import Explanation, explain_batch
from explain.catalog import get_method
from explain.targets import Target
from models.schema import LiveModel

__all__ = ["explain_picture"]


def explain_picture(
    live: LiveModel,
    image: Image.Image,
    *,
    methods: Sequence[str],
    target: Target,
    layers: Sequence[str] | None = None,
    words: bool = False,
) -> Explanation:
    """Prediction, maps and, if asked for, words of one RGB picture.

    Args:
        live: the model.
        image: RGB.
        methods: catalog names, signed ones among them.
        target: what to explain.
        layers: of the class activation maps; the model's target layer when not given.
        words: score the words of the question too.

    Raises:
        IncompatibleMethodError: a method or layer is unknown, or does not fit the model.
    """
    shared = [method for method in methods if not get_method(method).signed]
    signed = [method for method in methods if get_method(method).signed]
    if shared or words:
        answer = explain_batch(live, [image], methods=shared, targets=[target], layers=layers, words=words)[0]
    else:
        answer = Explanation(live.predict([image])[0], (), ())
    if not signed:
        return answer
    found, problems = attribute_picture(live, image, signed, target)
    maps = sorted((*answer.heatmaps, *found), key=lambda one: methods.index(one.method))
    return replace(answer, heatmaps=tuple(maps), problems=(*answer.problems, *problems))
