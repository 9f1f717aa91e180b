"""What the Models tab lists: every zoo entry with what would serve, what it needs, and what this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.memory import free_bytes, weight_bytes
from models.precision import Fixed, resolve
from models.registry import weights_folder
from models.schema import ModelSpec, ModelStatus
from ui.services import Services

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Holding:
    """One zoo entry as it stands on this machine.

    Attributes:
        spec: the entry.
        status: what serves, or would.
        loaded: whether it is in memory.
        needs_mb: precision to megabytes in memory, first what is used here; other models have one need, under "".
        pages: addresses of the hub pages of its weights, its own first.
    """

    spec: ModelSpec
    status: ModelStatus
    loaded: bool
    needs_mb: Mapping[str, float]
    pages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All entries, and the memory they share.

    Attributes:
        holdings: task to its entries, both in the order of the zoo.
        free_mb: megabytes (10^6 bytes) that can still be had where models are put.
        on_gpu: whether that is a GPU's memory.
    """

    holdings: Mapping[str, tuple[Holding, ...]]
    free_mb: float
    on_gpu: bool

    @property
    def loaded(self) -> int:
        """How many models are in memory."""
        return sum(holding.loaded for entries in self.holdings.values() for holding in entries)


def take_inventory(services: Services) -> Inventory:
    """What there is now; loads nothing and asks no network."""
    loader = services.loader
    loaded, hub = set(loader.loaded), loader.hub.endpoint

    def holding(spec: ModelSpec) -> Holding:
        on_hub = [source for source in (spec.source, spec.base) if source and weights_folder(source) is None]
        pages = tuple(f"{hub}/{source}" for source in dict.fromkeys(on_hub))
        return Holding(spec, loader.status(spec.id), spec.id in loaded, needs_mb(spec, loader.device), pages)

    return Inventory(
        {task: tuple(map(holding, services.zoo.for_task(task))) for task in services.zoo.tasks},
        free_bytes(loader.device) / 1e6,
        loader.device.type == "cuda",
    )


def needs_mb(spec: ModelSpec, device: torch.device) -> dict[str, float]:
    """What an entry needs in memory, as it would be kept here and, of a vision-language model, at the least."""
    if spec.kind != "vlm":
        return {"": spec.memory_mb}
    # The zoo states these in bf16, two bytes a weight.
    kept: tuple[Fixed, ...] = (resolve(spec.precision, device), "nf4")
    return {fixed: spec.memory_mb * weight_bytes(1000, fixed, device, 1000) / 2000 for fixed in kept}
