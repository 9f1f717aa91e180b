"""The network of a recipe: loaded or built, with its adapter, and with gradients only where it is to learn."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import peft
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from peft.tuners.lora import Linear as AdaptedLinear
from torch import Tensor, nn

from models.errors import ModelUnavailableError
from models.families import get_family
from models.families.base import Family
from models.hub import Hub, Wanted
from models.positions import make_room
from models.precision import keep_gradients, load_options, skeleton
from training.errors import RecipeError
from training.language_recipe import AdapterRecipe, LanguageRecipe
from training.questions import QuestionSet
from training.small_paligemma import build_small_paligemma, load_vit, start_tower

logger = logging.getLogger(__name__)


class Composed(nn.Module):
    """A network that takes pictures by functions of its own only, behind the inputs that other families take.

    Args:
        network: as its family loads it.
        family: puts picture and words together.
    """

    def __init__(self, network: nn.Module, family: Family) -> None:
        super().__init__()
        self.network = network
        self._family = family

    def forward(self, logits_to_keep: int = 0, use_cache: bool = False, **inputs: Tensor) -> Any:  # noqa: ANN401
        """What the network gives for ``input_ids``, ``pixel_values`` ..."""
        seen = self._family.image_features(self.network, inputs)
        embedded = self._family.embed(self.network, inputs, seen)
        return self.network(**embedded, logits_to_keep=logits_to_keep, use_cache=use_cache)


@dataclass(frozen=True)
class Pupil:
    """A network to be trained with its processor; ``network`` is wrapped by peft when it learns an adapter."""

    network: Any
    processor: Any
    family: Family

    @property
    def base(self) -> Any:  # noqa: ANN401 - a class of the library, which carries no types
        """The network itself, its layers adapted in place."""
        if isinstance(self.network, Composed):
            return self.network.network
        return self.network.get_base_model() if isinstance(self.network, peft.PeftModel) else self.network

    @property
    def trains_tower(self) -> bool:
        """Whether anything in the vision tower learns, so that pictures must go through it every time."""
        return any(parameter.requires_grad for parameter in _tower(self.base, self.family).parameters())

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole network, and the processor, as the app loads them."""
        if self.family.remote_code:  # the app reads the weights into the code of the repository
            self.base.remote.save_pretrained(folder)
            return
        self.network.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def build_pupil(recipe: LanguageRecipe, questions: QuestionSet) -> Pupil:
    """The network of a recipe, with an adapter to be learnt if it has one; only what is to be learnt has gradients.

    Raises:
        RecipeError: if the weights cannot be loaded or built, or the adapter fits no layer.
    """
    family = get_family(recipe.family)
    if recipe.model.build is not None:
        texts = [text for question in questions.questions for text in (question.text, question.answer)]
        network, processor = build_small_paligemma(recipe.model.build, texts)
    else:
        network, processor = _load(recipe, family)
    if torch.cuda.is_available():
        network = network.to("cuda") if recipe.model.precision != "nf4" else network  # quantised ones are there already
    elif hasattr(network, "set_attn_implementation"):
        # Eager attention: in training, the fused kernel's backward pass is three times as slow on a CPU.
        network.set_attn_implementation("eager")
    if recipe.adapter is None:
        if family.remote_code:
            network.requires_grad_(requires_grad=False)
            network.remote.model.text.requires_grad_(requires_grad=True)
        _tower(network, family).requires_grad_(requires_grad=recipe.model.train_tower)
        return Pupil(Composed(network, family) if family.remote_code else network, processor, family)
    if family.remote_code:
        raise RecipeError(
            f"adapter: the code of {recipe.family} computes with its weights directly, where an adapter would do "
            "nothing; leave it out, and the decoder is trained as a whole."
        )
    return _adapt(network, processor, family, recipe, recipe.adapter)


def _adapt(
    network: Any,  # noqa: ANN401
    processor: Any,  # noqa: ANN401
    family: Family,
    recipe: LanguageRecipe,
    settings: AdapterRecipe,
) -> Pupil:
    """The network with a new adapter, and with gradients in the adapter's own parts only."""
    for part in settings.modules_to_save:  # peft passes over a name that it does not find
        if not any(name.endswith(part) for name, _ in network.named_modules()):
            raise RecipeError(f"adapter.modules_to_save: no part of the network is named {part}.")
    brought: list[str] = []
    if settings.tower:
        brought, processor = _bring_tower(network, processor, family, settings.tower)
    lora = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        modules_to_save=[*brought, *settings.modules_to_save] or None,
        task_type="CAUSAL_LM",
        base_model_name_or_path=recipe.model.start,
    )
    try:
        adapted = peft.get_peft_model(network, lora)
    except ValueError as error:
        raise RecipeError(f"adapter.targets: {' '.join(str(error).split())[:300]}") from error
    if brought and not recipe.model.train_tower:  # peft lets learn whatever comes with an adapter
        _tower(adapted.get_base_model(), family).requires_grad_(requires_grad=False)
    fold_adapters(adapted)
    return Pupil(adapted, processor, family)


def _tower(network: Any, family: Family) -> nn.Module:  # noqa: ANN401
    """What holds the weights of the vision encoder."""
    found: nn.Module = (
        network.remote.model.vision if family.remote_code else network.get_submodule(family.anatomy(network).tower)
    )
    return found


def _bring_tower(network: Any, processor: Any, family: Family, folder: str) -> tuple[list[str], Any]:  # noqa: ANN401
    """Start the tower from a ViT's weights; the names of all its parts, which come with the adapter, and a processor.

    Each part is named by itself, since what explains a network hooks into the blocks around them; but the embeddings
    come as one, with their number of positions.
    """
    name, tower = family.anatomy(network).tower, _tower(network, family)
    vit = load_vit(folder)[0]
    patches = (int(vit.config.image_size) // int(vit.config.patch_size)) ** 2
    embeddings: Any = getattr(tower, "embeddings", None)
    whole = () if embeddings is None else ("embeddings",)
    if getattr(embeddings, "num_positions", patches) != patches:
        make_room(embeddings, patches)
        processor = family.processor_for(processor, patches)
    start_tower(tower, vit)
    parts = (part for part, module in tower.named_modules() if any(True for _ in module.parameters(recurse=False)))
    apart = (part for part in parts if part.partition(".")[0] not in whole)
    return [f"{name}.{part}" for part in (*whole, *apart)], processor


def _load(recipe: LanguageRecipe, family: Family) -> tuple[Any, Any]:
    """Network and processor of ``model.start``, which may have to be fetched, in the recipe's precision."""
    start, precision = str(recipe.model.start), recipe.model.precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trusted = {"trust_remote_code": True} if family.remote_code and recipe.model.trust else {}
    try:
        folder = _find_folder(recipe, family)
        network = skeleton(folder) if precision == "nf4" else None
        options = load_options(precision, network, family, device)
        if precision == "nf4":
            options["quantization_config"].bnb_4bit_use_double_quant = True
            options["quantization_config"].bnb_4bit_compute_dtype = torch.bfloat16
        loaded, processor, report = family.load(folder, **options, **trusted)
    except (OSError, ValueError, ModelUnavailableError) as error:
        raise RecipeError(f"model.start: {start}: {' '.join(str(error).split())[:300]}") from error
    if report.get("missing_keys"):
        # The library fills them with random numbers, on which an adapter would be trained in vain.
        raise RecipeError(f"model.start: {start}: lacks weights ({sorted(report['missing_keys'])[0]} ...).")
    keep_gradients(loaded)
    return loaded, processor


def _find_folder(recipe: LanguageRecipe, family: Family) -> Path:
    """The folder of ``model.start``: itself, or what the hub has under that id."""
    start = str(recipe.model.start)
    if Path(start).expanduser().is_dir() or start.count("/") != 1:
        return Path(start).expanduser()
    wanted = Wanted(start, recipe.model.revision, kind="remote" if family.remote_code else "vlm")
    told = -1

    def tell(share: float | None, text: str) -> None:
        nonlocal told
        tenth = -1 if share is None else int(share * 10)
        if tenth > told:
            told = tenth
            logger.info("%s: %s", start, text)

    return Hub().fetch(wanted, tell)[0]


def fold_adapters(network: nn.Module) -> None:
    """Let narrow layers add their adapter to the weight before the product, which comes to the same and costs less.

    The library multiplies every token by the weight, by A and by B. Where the rank is not small beside the layer, one
    product with W + BA takes fewer operations, its backward pass included: the small PaliGemma learns a rank of 64 a
    fifth faster. Dropout between input and A, and quantised weights, do not allow it.
    """
    layers: list[Any] = [part for part in network.modules() if type(part) is AdaptedLinear]
    for part in layers:
        (name,) = part.lora_A
        rank, size = part.r[name], part.in_features * part.out_features
        if type(part.lora_dropout[name]) is nn.Identity and size <= 4 * rank * (part.in_features + part.out_features):
            part.forward = MethodType(_folded, part)


def _folded(self: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401 - the library's layer, which carries no types
    (name,) = self.lora_A
    change = self.lora_B[name].weight @ self.lora_A[name].weight
    return F.linear(tokens, self.base_layer.weight + self.scaling[name] * change, self.base_layer.bias)
