"""Maps of an examination held against those of the same networks with random weights, on request."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from explain.catalog import get_method
from explain.examination import Examination, load_explainable
from explain.faithfulness_probe import fixed_target
from explain.faithfulness_sanity import check_randomisation
from explain.targets import default_target
from models.loading import ModelLoader

__all__ = ["check_maps"]


def check_maps(examination: Examination, loader: ModelLoader, maps: Collection[tuple[str, str]]) -> Examination:
    """The examination with the check of some of its maps (Adebayo et al. 2018); a dozen passes for each model.

    Args:
        examination: with those maps.
        loader: as it was examined with.
        maps: model id and method of each; what is no map of a model that has a part in the verdict is left out.

    Raises:
        ExhibitError: a model cannot be had, or its weights are quantised.
    """
    found = {(one.model_id, one.method): one for one in examination.checks}
    for model_id in examination.settings.models:
        own = [one for one in examination.heatmaps if one.model_id == model_id]
        wanted = [one.method for one in own if (model_id, one.method) in maps]
        if not wanted:
            continue
        live = load_explainable(loader, model_id, examination.settings)
        aware = [one.target for one in own if get_method(one.method).class_aware]
        usual = default_target(live, examination.settings.target)
        target = fixed_target(aware[0], live.labels) if aware else usual
        for check in check_randomisation(live, examination.source.rgb, wanted, target):
            found[model_id, check.method] = replace(check, model_id=model_id)
    order = [(one.model_id, one.method) for one in examination.heatmaps]
    return replace(examination, checks=tuple(found[key] for key in order if key in found))
