"""What Exhibit must know of a family of vision-language models, as one interface.

Facts are read from configs, processors and outputs: modules are found by their class or by the config they carry, grids
from the tensors the processor returned. Nothing is a constant copied from a model card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor, nn

from models.errors import ExhibitError, IncompatibleMethodError, ModelUnavailableError
from models.schema import Box, Inputs, LayerPreset, TokenLayout

__all__ = [
    "Anatomy",
    "Family",
    "Stage",
    "anatomy_of",
    "answer_separator",
    "block_names",
    "chat_prompt",
    "checked_question",
    "closing_norm",
    "config_of",
    "continuation_ids",
    "embed_images",
    "image_tokens",
    "input_embedding",
    "layer_presets",
    "load_parts",
    "pixels_for",
    "shown_box",
    "without_prefix",
]

Stage = Literal["tower", "projector", "language"]
"""Where a layer lies: in the vision tower, at the projector's output, or in the language model."""


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a loaded network are, as dotted names within it.

    Attributes:
        tower: the vision encoder.
        projector: what turns its features into the language model's tokens.
        language: the language model's stack of decoder layers (the module that holds ``embed_tokens``).
        embedding: its input embedding; the gradient there gives the word attributions.
    """

    tower: str
    projector: str
    language: str
    embedding: str


class Family(ABC):
    """How one family is loaded, asked, and mapped back to the picture. Stateless; ``module`` and ``processor`` come in.

    Attributes:
        name: file name, as zoo entries write it.
        model_types: values of ``config.model_type`` that it serves.
        remote_code: whether its network exists only as code in its repository, which needs explicit trust.
    """

    name: str
    model_types: tuple[str, ...]
    remote_code: bool = False

    @abstractmethod
    def load(self, folder: Path | str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Network, processor and the library's loading report (``missing_keys`` ...).

        Args:
            folder: local folder with config, processor and safetensors.
            options: passed to ``from_pretrained`` of the network (``dtype``, ``quantization_config``,
                ``attn_implementation``, ``device_map`` ...); ``local_files_only`` and ``use_safetensors`` are always
                set.
        """

    @abstractmethod
    def prompt(self, processor: Any, question: str) -> str:  # noqa: ANN401
        """The text before the answer in the family's own form (chat template or prefix), image placeholder included."""

    @abstractmethod
    def encode(self, processor: Any, images: Sequence[Image.Image], prompts: Sequence[str]) -> Inputs:  # noqa: ANN401
        """Images with as many prompts as model inputs, on the CPU, padded on the left so that answers continue them.

        Everything that ``split`` and ``layout`` need later must be found in the result (tensors only).
        """

    @abstractmethod
    def continuation(self, processor: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401
        """Ids of the tokens by which ``answer`` continues ``prompt``; no special tokens; never empty.

        Equal to tokenising prompt + answer (with the separator the family writes between them) and dropping the
        prompt's own tokens, so that a label is scored as the family was trained to write it.
        """

    def processor_for(self, processor: Any, patches: int) -> Any:  # noqa: ANN401, ARG002
        """A processor for an adapter whose tower takes pictures of so many patches, other than the base's.

        Raises:
            ModelUnavailableError: towers of this family take one size, or any.
        """
        raise ModelUnavailableError(
            f"the adapter brings a {self.name} tower for pictures of another size", "take it along in a whole model"
        )

    @abstractmethod
    def anatomy(self, module: nn.Module) -> Anatomy:
        """Names of the parts, found by class or config."""

    @abstractmethod
    def layers(self, module: nn.Module) -> tuple[LayerPreset, ...]:
        """Layers worth explaining, the default first.

        The last of the vision tower whose gradient is alive, the projector, the language model's middle layer (its
        image tokens).
        """

    @abstractmethod
    def image_features(self, module: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401
        """The projected image features of ``inputs``: what ``embed`` takes, one entry per image (list or tensor)."""

    @abstractmethod
    def embed(self, module: nn.Module, inputs: Inputs, features: Any) -> Inputs:  # noqa: ANN401
        """Inputs for the network with the image features in place of the pixels, so that they are computed once.

        Args:
            module: the network.
            inputs: as ``encode`` gave them, for n prompts.
            features: as ``image_features`` gave them, one per prompt, in order; repeat an image's entry to ask it
                twice.

        Returns:
            ``inputs_embeds``, ``attention_mask`` and whatever else the family's forward needs (``position_ids``,
            ``token_type_ids`` ...), without ``pixel_values``.
        """

    @abstractmethod
    def split(self, module: nn.Module, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:
        """One layer's output for a whole batch (or its gradient) as one (tokens, channels) tensor per image.

        Tiles of one image are put one after the other along the token axis, so ``TokenGrid.tokens`` counts through.
        """

    @abstractmethod
    def layout(
        self,
        module: nn.Module,
        processor: Any,  # noqa: ANN401
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str,
    ) -> list[TokenLayout]:
        """Where the cells of ``split`` lie in each original picture; grids that overlap are averaged when drawn."""

    def stage(self, module: nn.Module, layer: str) -> Stage:
        """Where a layer lies, by its dotted name and the anatomy.

        Raises:
            KeyError: in none of them.
        """
        parts = self.anatomy(module)
        for name, stage in ((parts.tower, "tower"), (parts.projector, "projector"), (parts.language, "language")):
            if layer == name or layer.startswith(f"{name}."):
                return stage  # type: ignore[return-value]
        raise KeyError(layer)


def config_of(module: nn.Module) -> Any:  # noqa: ANN401 - each family's config is a class of its own
    """The config a network or one of its parts carries; ``None`` if it carries none."""
    return getattr(module, "config", None)


def input_embedding(module: nn.Module) -> nn.Module:
    """The module that turns ids into vectors."""
    network: Any = module
    found: nn.Module = network.get_input_embeddings()
    return found


def load_parts(
    network: Any,  # noqa: ANN401 - a class of the library, which carries no types
    processor: Any,  # noqa: ANN401
    folder: Path | str,
    **options: Any,  # noqa: ANN401
) -> tuple[Any, Any, dict[str, Any]]:
    """``Family.load`` with the library's own classes: safetensors only, nothing fetched, no code of the folder run."""
    kept: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    reader = processor.from_pretrained(folder, **kept)
    module, report = network.from_pretrained(folder, **options, **kept, use_safetensors=True, output_loading_info=True)
    return module.eval(), reader, dict(report)


def anatomy_of(module: nn.Module, projector: type[nn.Module]) -> Anatomy:
    """The parts of a network with ``vision_config``: tower by the config it carries, projector by class.

    Args:
        module: the network, adapters included.
        projector: its class of projectors.

    Raises:
        ModelUnavailableError: a part is missing, so this is not a network of the family.
    """
    vision = type(config_of(module).vision_config)
    words = input_embedding(module)
    embedding = _first(module, lambda part: part is words, "input embedding")
    return Anatomy(
        tower=_first(module, lambda part: isinstance(config_of(part), vision), "vision tower"),
        projector=_first(module, lambda part: isinstance(part, projector), "projector"),
        language=embedding.rpartition(".")[0],
        embedding=embedding,
    )


def _first(module: nn.Module, fits: Callable[[nn.Module], bool], what: str) -> str:
    for name, part in module.named_modules():
        if fits(part):
            # An adapter that trains a part as a whole keeps the original beside its copy; their wrapper is what runs.
            return name.removesuffix(".original_module")
    raise ModelUnavailableError(
        f"{type(module).__name__} has no {what}", "name the right family for this model in the zoo"
    )


def block_names(module: nn.Module, root: str, count: int) -> list[str]:
    """Dotted names of the ``count`` blocks that follow each other in ``root``.

    Raises:
        ModelUnavailableError: ``root`` has no list of that many blocks.
    """
    stack = _first(
        module.get_submodule(root), lambda part: isinstance(part, nn.ModuleList) and len(part) == count, "blocks"
    )
    return [f"{root}.{stack}.{index}" for index in range(count)]


def closing_norm(module: nn.Module, tower: str) -> str:
    """Dotted name of the normalisation that ends a tower, behind its blocks.

    In towers that end in one it is explained rather than the last block: what is normalised next has a gradient at
    right angles to itself, so that activation times gradient (HiResCAM) would add up to nothing at every patch.

    Raises:
        ModelUnavailableError: the tower does not end in one.
    """
    found = [
        name
        for name, part in module.get_submodule(tower).named_children()
        if isinstance(getattr(part, "original_module", part), nn.LayerNorm)  # the adapter may have brought its own
    ]
    if not found:
        raise ModelUnavailableError(
            f"{type(module).__name__} has no normalisation behind its vision tower",
            "name the right family for this model in the zoo",
        )
    return f"{tower}.{found[-1]}"


def layer_presets(module: nn.Module, family: Family, alive: str) -> tuple[LayerPreset, ...]:
    """The tower's last layer that is ``alive``, the projector, and the language model's middle layer.

    The language model's last layer is never the middle one: what it makes of image tokens reaches no answer.
    """
    parts, count = family.anatomy(module), config_of(module).text_config.num_hidden_layers
    middle = block_names(module, parts.language, count)[(count - 1) // 2]
    return (
        LayerPreset(alive, "the last layer of the vision tower that the answer depends on"),
        LayerPreset(parts.projector, "the picture as handed to the language model"),
        LayerPreset(middle, "the language model's middle layer, at its image tokens"),
    )


def pixels_for(module: nn.Module, tower: str, inputs: Inputs) -> Tensor:
    """``pixel_values`` where the tower lies and in its precision."""
    kept = next(weight for weight in module.get_submodule(tower).parameters() if weight.is_floating_point())
    return inputs["pixel_values"].to(kept.device, kept.dtype)


def embed_images(module: nn.Module, inputs: Inputs, features: Tensor, image_token_id: int) -> Tensor:
    """Embeddings (n, sequence, channels) of ``input_ids`` with the image features at the image tokens, in order.

    Args:
        module: the network.
        inputs: with ``input_ids`` (n, sequence).
        features: (image tokens of all prompts, channels).
        image_token_id: which id marks them.

    Raises:
        ExhibitError: there are more or fewer features than image tokens.
    """
    ids = inputs["input_ids"]
    places = ids == image_token_id
    if int(places.sum()) != len(features):
        raise ExhibitError(
            f"The prompts have room for {int(places.sum())} image tokens and {len(features)} were given: "
            "give the features of each prompt's own image."
        )
    embedding = input_embedding(module)
    # The image token may lie outside the vocabulary; any word can stand in, since it is replaced.
    words = embedding(ids.masked_fill(places, 0))
    return words.masked_scatter(places[..., None], features.to(words.device, words.dtype))


def image_tokens(activation: Tensor, inputs: Inputs, image_token_id: int) -> list[Tensor]:
    """A language layer's output (n, sequence, channels) at the image tokens: n of (image tokens, channels)."""
    places = (inputs["input_ids"] == image_token_id).to(activation.device)
    return [row[place] for row, place in zip(activation, places, strict=True)]


def without_prefix(activation: Tensor, cells: int) -> Tensor:
    """(n, tokens, channels) without the class token and registers that stand before the ``cells`` patches.

    A channels-first map (n, channels, rows, columns) becomes (n, cells, channels).

    Raises:
        IncompatibleMethodError: the layer has fewer tokens, or another shape.
    """
    if activation.ndim == 4:
        activation = activation.flatten(2).transpose(1, 2)
    if activation.ndim != 3 or activation.shape[1] < cells:
        raise IncompatibleMethodError(
            f"The layer gives {tuple(activation.shape)} where {cells} patches with their channels are needed; "
            "choose one of the model's own layers."
        )
    return activation[:, activation.shape[1] - cells :]


def shown_box(size_wh: tuple[int, int], pixels: Tensor, patch_px: int) -> Box:
    """What whole patches show of a picture that was stretched to ``pixels``; a rest at right and bottom is not seen."""
    height, width = pixels.shape[-2:]
    return (
        0.0,
        0.0,
        size_wh[0] * (width // patch_px * patch_px) / width,
        size_wh[1] * (height // patch_px * patch_px) / height,
    )


def checked_question(question: str, image_token: str) -> str:
    """The question without outer white space.

    Raises:
        ExhibitError: it holds the mark that stands for the picture.
    """
    if image_token in question:
        raise ExhibitError(f"The question contains {image_token!r}, which stands for the picture: leave it out.")
    return question.strip()


def chat_prompt(processor: Any, question: str) -> str:  # noqa: ANN401
    """An image and a question in the processor's chat template, up to where the answer begins."""
    return str(processor.apply_chat_template([_asked(processor, question)], add_generation_prompt=True))


def answer_separator(processor: Any) -> str:  # noqa: ANN401
    """What the processor's chat template writes between a prompt and its answer; often one space, or nothing."""
    asked, answer = _asked(processor, "?"), "0"
    told = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    prompt = str(processor.apply_chat_template([asked], add_generation_prompt=True))
    rest = str(processor.apply_chat_template([asked, told])).removeprefix(prompt)
    return rest[: max(rest.find(answer), 0)]


def _asked(processor: Any, question: str) -> dict[str, Any]:  # noqa: ANN401
    if not processor.chat_template:
        raise ModelUnavailableError(
            "the model's processor has no chat template", "copy chat_template.jinja of its base model into the folder"
        )
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}


def continuation_ids(tokenizer: Any, prompt: str, answer: str) -> tuple[int, ...]:  # noqa: ANN401
    """Ids by which ``answer`` (its separator included) continues ``prompt``.

    Raises:
        ExhibitError: the answer has no tokens.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    before, whole = ids(prompt), ids(prompt + answer)
    # Where the last word of the prompt would melt into the answer, the model still has the prompt as it was encoded.
    found = whole[len(before) :] if whole[: len(before)] == before else ids(answer)
    if not found:
        raise ExhibitError(f"The answer {answer!r} has no tokens: write at least one character.")
    return tuple(found)
