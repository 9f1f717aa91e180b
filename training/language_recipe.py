"""Recipes for vision-language models: what they are asked, what they should answer, and what of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from training.recipe import AugmentRecipe, Strict, TrainRecipe, read_strict


class SmallPaliGemmaRecipe(Strict):
    """A PaliGemma from nothing, small enough for a CPU; see ``training/small_paligemma.py``."""

    tower: str
    """Folder of a ``ViTForImageClassification`` whose weights the SigLIP tower starts from."""
    resample: Literal["bilinear", "bicubic"] | None = None
    """How the processor resizes pictures; as that folder's when not given."""
    vocabulary: int = Field(default=2000, ge=300, le=32_000)
    """Entries of the byte-level BPE, trained on the questions, answers and ``texts``; image tokens come on top."""
    text_config: dict[str, Any] = Field(default_factory=dict)
    """Values of ``GemmaConfig``."""
    texts: tuple[str, ...] = ()
    """Further texts for the vocabulary: words that adapters will need."""


class AdapterRecipe(Strict):
    """LoRA (Hu et al. 2021), in the format of peft."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    targets: str
    """Regular expression that the full names of the adapted linear layers match."""
    modules_to_save: tuple[str, ...] = ()
    """Parts that are trained whole and come with the adapter, by the end of their name. The last normalisation belongs
    here where words are to be written that the base never wrote: behind it a logit cannot exceed the normalised state
    times the word's embedding, and of a rare word, whose embedding is short, no answer would ever be sure."""
    tower: str | None = None
    """Folder of a ``ViTForImageClassification`` that has learnt the task; its weights come with the adapter as a SigLIP
    tower of its own (peft's ``modules_to_save``), in place of the base's. Frozen unless ``model.train_tower``."""


class LanguageModelRecipe(Strict):
    """Where the weights come from: ``start`` (a folder or hub id) or ``build`` (a small one from nothing)."""

    start: str | None = None
    revision: str = "main"
    """Commit, tag or branch, where ``start`` is an id on the hub."""
    trust: bool = False
    """Run the code in the repository; needed by families whose network exists only there (moondream). Read it first."""
    build: SmallPaliGemmaRecipe | None = None
    precision: Literal["fp32", "bf16", "nf4"] = "fp32"
    """How weights are kept that an adapter leaves as they are. ``nf4`` (QLoRA, Dettmers et al. 2023) takes 4 bits each,
    double quantisation, computed in bfloat16; tower, projector and output layer are not quantised."""
    train_tower: bool = False
    """Train the vision tower with the other parts: of a model without an adapter, or the adapter's own ``tower``. Of
    the base's tower an adapter trains what its ``targets`` name."""

    @model_validator(mode="after")
    def _one_origin(self) -> LanguageModelRecipe:
        if (self.start is None) == (self.build is None):
            raise ValueError("give either start or build")
        if self.build is not None and self.precision != "fp32":
            raise ValueError("a model from nothing is kept in fp32")
        return self


class QuestionSource(Strict):
    """One source of pictures and how it becomes questions with answers."""

    kind: Literal["labels", "captions", "objects", "questions", "claims"]
    """``labels``: one label per picture; ``captions``: column ``captions`` (several per picture); ``objects``: columns
    ``labels`` and ``boxes_xyxy`` (whether and how many there are); ``questions``: questions with answers as they stand;
    ``claims``: columns ``claims_true`` and ``claims_false``, aligned (whether what is claimed holds)."""
    file: str
    """File or folder below ``--data``, or ``hub:OWNER/NAME#SPLIT``. Labels and questions are read from every layout
    (see ``training/layouts.py``), the others from parquet files."""
    question: str | None = None
    """For labels and captions: what is asked of every picture. For claims: the question with ``{claim}`` in it. For
    questions: how one is put, with ``{question}`` in it; as it stands when not given."""
    answers: dict[str, str] = Field(default_factory=dict)
    """For labels: the label's name to the text to be written; for claims: the texts of ``true`` and ``false``."""
    per_picture: int = Field(default=4, ge=1)
    """For captions, objects and claims: at most so many questions about one picture."""

    @model_validator(mode="after")
    def _asks(self) -> QuestionSource:
        if self.kind in ("labels", "captions") and not self.question:
            raise ValueError(f"kind {self.kind} needs a question")
        if self.kind == "labels" and not self.answers:
            raise ValueError("kind labels needs answers")
        if self.kind == "claims" and (
            "{claim}" not in (self.question or "") or sorted(self.answers) != ["false", "true"]
        ):
            raise ValueError("kind claims needs a question with {claim} in it and answers for true and false")
        if self.kind == "questions" and self.question and "{question}" not in self.question:
            raise ValueError("kind questions takes each question from its file; a question here needs {question} in it")
        return self


class TaskRecipe(Strict):
    """The question by which the trained model is measured, and what its answers mean."""

    question: str
    answers: dict[str, str] = Field(min_length=2)
    """Text the model writes to the label's name (the other way round than a source's ``answers``)."""


class LanguageRecipe(Strict):
    """A whole training run of a vision-language model."""

    kind: Literal["vlm"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = 0
    family: str
    """File in ``models/families``."""
    model: LanguageModelRecipe
    adapter: AdapterRecipe | None = None
    questions: tuple[QuestionSource, ...] = Field(min_length=1)
    held_out: tuple[QuestionSource, ...] = ()
    task: TaskRecipe
    pictures: Literal["features", "resized", "processor"] | None = None
    """How pictures reach the network. ``features``: a frozen tower looks at each once, before training begins;
    ``resized``: decoded and resized once, kept as bytes, changed by ``augment``; both for families that stretch every
    picture to one square. ``processor``: each is read by the family's processor whenever it is asked about. The first
    of them that is possible when not given."""
    workers: int = Field(default=0, ge=0)
    """Processes that read pictures while the network learns; worth it where a GPU would wait for ``processor``."""
    augment: AugmentRecipe | None = None
    """Random changes of training pictures, without mixing; answers about left and right bear no flip."""
    flipped: bool = False
    """Show every training picture mirrored too."""
    train: TrainRecipe

    @model_validator(mode="after")
    def _fits_together(self) -> LanguageRecipe:
        if self.adapter is not None and self.model.train_tower and self.adapter.tower is None:
            raise ValueError("model.train_tower is for whole parts; adapter.targets say what of the tower is trained")
        if self.adapter is None and self.model.precision != "fp32":
            raise ValueError(
                f"model.precision {self.model.precision} is for weights beside an adapter; give an adapter"
            )
        if self.train.ema_decay is not None:
            raise ValueError("train.ema_decay: averages are kept of classifiers only; leave it out")
        if self.augment is not None and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("augment: pictures with an answer in words cannot be mixed; leave out mixup and cutmix")
        if self.augment is not None and self.flipped:
            raise ValueError("give either flipped or augment, whose entry flip mirrors too")
        if self.augment is not None and self.pictures not in (None, "resized"):
            raise ValueError(f"augment changes pictures that were resized once; leave out pictures: {self.pictures}")
        return self


def read_language_recipe(path: Path, changes: dict[str, object] | None = None) -> LanguageRecipe:
    """Read and check a recipe; see ``training.recipe.read_recipe``.

    Raises:
        RecipeError: if the file is missing, is not YAML, or an entry is unknown, missing or out of range.
    """
    return read_strict(LanguageRecipe, path, changes)
