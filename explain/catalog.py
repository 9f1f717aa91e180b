"""The explanation methods and what each may claim; the page offers only what is compatible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.errors import IncompatibleMethodError
from models.schema import LiveModel

__all__ = ["CATALOG", "DEFAULT_METHODS", "MethodEntry", "get_method", "list_methods"]


@dataclass(frozen=True)
class MethodEntry:
    """The contract of an explanation method.

    Attributes:
        name: how settings, manifests and commands call it.
        title: how the literature writes it.
        signed: whether a map has a meaning below 0; CAMs are clipped there.
        class_aware: whether the map depends on the target. If not, it must not be read as evidence for a label.
        needs_gradients: whether the model must let gradients through.
        compatible: a loaded model to the reason why the method cannot be used with it, ``None`` if it can.
        source: the paper.
    """

    name: str
    title: str
    signed: bool
    class_aware: bool
    needs_gradients: bool
    compatible: Callable[[LiveModel], str | None]
    source: str


def list_methods(live: LiveModel) -> tuple[MethodEntry, ...]:
    """The methods that can be used with a loaded model, in catalog order."""
    return tuple(entry for entry in CATALOG.values() if entry.compatible(live) is None)


def get_method(name: str) -> MethodEntry:
    """The entry of that name.

    Raises:
        IncompatibleMethodError: there is none; the message lists the names.
    """
    if name not in CATALOG:
        raise IncompatibleMethodError(f"There is no method {name!r}; the methods are {', '.join(CATALOG)}.")
    return CATALOG[name]


def _needs_layer(live: LiveModel) -> str | None:
    try:
        found = bool(live.layers)
    except IncompatibleMethodError as error:
        return str(error)
    return None if found else f"{live.spec.id} names no layer whose cells lie in the picture"


def _needs_gradients(live: LiveModel) -> str | None:
    return _lets_gradients_through(live) or _needs_layer(live)


def _lets_gradients_through(live: LiveModel) -> str | None:
    if any(parameter.is_inference() for parameter in live.module.parameters()):
        return f"{live.spec.id} was loaded in inference mode, which forbids gradients"
    return None


def _needs_nothing(_live: LiveModel) -> str | None:
    return None


def _cam(name: str, title: str, source: str, *, class_aware: bool = True) -> MethodEntry:
    return MethodEntry(
        name=name,
        title=title,
        signed=False,
        class_aware=class_aware,
        needs_gradients=class_aware,
        compatible=_needs_gradients if class_aware else _needs_layer,
        source=source,
    )


def _attribution(name: str, title: str, source: str, *, needs_gradients: bool = True) -> MethodEntry:
    """A method that gives every pixel its share of the score, for or against; some dozens of passes instead of one."""
    return MethodEntry(
        name=name,
        title=title,
        signed=True,
        class_aware=True,
        needs_gradients=needs_gradients,
        compatible=_lets_gradients_through if needs_gradients else _needs_nothing,
        source=source,
    )


CATALOG: Mapping[str, MethodEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _cam("gradcam", "Grad-CAM", "Selvaraju et al. 2017, arXiv:1610.02391"),
            _cam("gradcampp", "Grad-CAM++", "Chattopadhay et al. 2018, arXiv:1710.11063"),
            _cam("layercam", "LayerCAM", "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943"),
            _cam("eigencam", "Eigen-CAM", "Muhammad and Yeasin 2020, arXiv:2008.00299", class_aware=False),
            _cam("eigengradcam", "Eigen-Grad-CAM", "Muhammad and Yeasin 2020, arXiv:2008.00299, times the gradient"),
            _cam("hirescam", "HiResCAM", "Draelos and Carin 2020, arXiv:2011.08891"),
            _cam("xgradcam", "XGrad-CAM", "Fu et al. 2020, arXiv:2008.02312"),
            _attribution("integrated_gradients", "Integrated gradients", "Sundararajan et al. 2017, arXiv:1703.01365"),
            _attribution("occlusion", "Occlusion", "Zeiler and Fergus 2014, arXiv:1311.2901", needs_gradients=False),
            _attribution("gradient_shap", "GradientSHAP", "Lundberg and Lee 2017, arXiv:1705.07874"),
        )
    }
)

DEFAULT_METHODS = tuple(name for name, entry in CATALOG.items() if not entry.signed)
"""What is computed when nobody chooses: the methods that share one pass."""
