"""The explanation methods and what each may claim; the page offers only what is compatible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.errors import IncompatibleMethodError
from models.schema import LiveModel

__all__ = ["CATALOG", "MethodEntry", "get_method", "list_methods"]


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
    if any(parameter.is_inference() for parameter in live.module.parameters()):
        return f"{live.spec.id} was loaded in inference mode, which forbids gradients"
    return _needs_layer(live)


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
        )
    }
)
