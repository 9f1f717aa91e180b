"""Training: images per second beside a bare loop of the same model, and the memory of QLoRA beside LoRA.

python -m benchmarks.training
python -m benchmarks.training --json --save
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    AutoProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    get_cosine_schedule_with_warmup,
)

from benchmarks.report import Figure, arguments, median, report
from training.asking import IGNORED
from training.finetune import build_learner, finetune
from training.labelled import LabelledSet, read_labelled, write_parquet
from training.language import finetune_language
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.language_trainer import LanguageTrainer
from training.looking import looking
from training.memory import MemoryEstimate, estimate_memory
from training.pictures import Pictures, decode_pictures, keep_batch
from training.pupil import build_pupil
from training.questions import QuestionSet, read_questions
from training.recipe import Recipe, TrainRecipe, read_recipe
from training.trainer import make_arguments

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
PICTURES = 128
STEPS = {"classifier": 12, "adapter": 4}
ROUNDS = 5
LABELS = ("fake", "real")
WIDER = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 4}
Batches = Iterator[dict[str, Tensor]]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    options = arguments("Fine-tuning beside a bare loop, and QLoRA's memory beside LoRA's.", argv)
    warnings.filterwarnings("ignore")
    logging.getLogger("training").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        _write_pictures(data / "train.parquet")
        classifier = read_recipe(RECIPES / "deepfake-resnet.yaml", {"train.checkpoint_steps": 1000})
        adapter = read_language_recipe(
            RECIPES / "paligemma-deepfake.yaml", {"train.checkpoint_steps": 1000, "held_out": []}
        )
        figures = [
            _speed_figure(
                "finetune_over_bare_loop",
                {
                    "finetune": lambda steps, out: _finetune(classifier, data, out, steps),
                    "bare": lambda steps, _: _bare_classifier(classifier, data, steps),
                },
                STEPS["classifier"],
                data,
                f"the bundled ResNet, batches of {classifier.train.batch_size}",
            ),
            _speed_figure(
                "finetune_adapter_over_bare_loop",
                {
                    "finetune": lambda steps, out: _adapt(adapter, data, out, steps),
                    "bare": lambda steps, _: _bare_adapter(adapter, data, steps),
                },
                STEPS["adapter"],
                data,
                f"LoRA on the bundled PaliGemma, batches of {adapter.train.batch_size}",
            ),
            *_memory_figures(adapter, data),
        ]
    report("training", figures, options)
    return 0


def _write_pictures(file: Path) -> None:
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(PICTURES):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (160, 160, 3), dtype=np.uint8)).save(buffer, "JPEG")
        encoded.append(buffer.getvalue())
    labels, names = tuple(index % 2 for index in range(PICTURES)), tuple(map(str, range(PICTURES)))
    write_parquet(LabelledSet(tuple(encoded), labels, LABELS, names), file)


def _speed_figure(
    name: str, contenders: Mapping[str, Callable[[int, Path], float]], steps: int, folder: Path, what: str
) -> Figure:
    """Contenders take turns; each tells its own images per second in training, without loading and checkpoints."""
    for key, run in contenders.items():
        run(1, folder / f"{name}-{key}-warm")
    ratios = []
    for number in range(ROUNDS):
        order = list(contenders.items())[:: 1 if number % 2 else -1]
        speeds = {key: run(steps, folder / f"{name}-{key}-{number}") for key, run in order}
        ratios.append(speeds["finetune"] / speeds["bare"])
    how = f"images per second of finetune / of a hand-written loop with the same batches and precision: {what}"
    return Figure(name, median(ratios), 0.9, "higher", how)


def _finetune(recipe: Recipe, data: Path, out: Path, steps: int) -> float:
    return float(finetune(recipe, data, out, progress=False, stop_after=steps)["images_per_second"])


def _adapt(recipe: LanguageRecipe, data: Path, out: Path, steps: int) -> float:
    return float(finetune_language(recipe, data, out, progress=False, stop_after=steps)["images_per_second"])


def _bare_classifier(recipe: Recipe, data: Path, steps: int) -> float:
    learner = build_learner(recipe)
    labelled = read_labelled(data / "train.parquet", recipe.labels)
    pixels, _ = decode_pictures(labelled, learner.processor)
    pictures = Pictures(
        pixels,
        list(labelled.labels),
        len(LABELS),
        learner.processor,
        crop=recipe.image.crop,
        augment=recipe.augment,
        seed=recipe.seed,
    )
    network = learner.classifier.to(_device())
    decay = recipe.train.ema_decay
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None

    def loss(batch: dict[str, Tensor]) -> Tensor:
        logits = network(pixel_values=batch["pixel_values"]).logits.float()
        return F.cross_entropy(logits, batch["labels"], label_smoothing=recipe.train.label_smoothing)

    return _train_bare(network, pictures, recipe.train, steps, loss, average)


def _bare_adapter(recipe: LanguageRecipe, data: Path, steps: int) -> float:
    questions = read_questions(recipe.questions, data, recipe.seed)
    pupil = build_pupil(recipe, questions)
    network = pupil.network.to(_device())

    def loss(batch: dict[str, Tensor]) -> Tensor:
        labels = batch.pop("labels")
        columns = int(labels.shape[1] - labels.ne(IGNORED).any(dim=0).int().argmax())
        logits = network(**batch, use_cache=False, logits_to_keep=columns + 1).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), labels[:, -columns:].flatten(), ignore_index=IGNORED)

    with looking(recipe, pupil, questions, QuestionSet((), ())) as (asked, _):
        return _train_bare(network, asked, recipe.train, steps, loss, None)


def _train_bare(
    network: nn.Module,
    dataset: Dataset[Any],
    train: TrainRecipe,
    steps: int,
    loss_of: Callable[[dict[str, Tensor]], Tensor],
    average: AveragedModel | None,
) -> float:
    """The loop one would write by hand for this recipe; its images per second."""
    device = _device()
    network.train()
    rows = train.micro_batch or train.batch_size
    parts = train.batch_size // rows
    learnt = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = AdamW(learnt, lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(train.warmup * steps), steps)
    batches = _endless(DataLoader(dataset, rows, shuffle=True, drop_last=True, collate_fn=keep_batch))
    started = perf_counter()
    for _ in range(steps):
        for _ in range(parts):
            batch = {name: tensor.to(device) for name, tensor in next(batches).items()}
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=train.precision == "bf16"):
                loss = loss_of(batch) / parts
            loss.backward()
        nn.utils.clip_grad_norm_(learnt, train.grad_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(network)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * train.batch_size / (perf_counter() - started)


def _endless(loader: DataLoader[Any]) -> Batches:
    while True:
        yield from loader


def _memory_figures(lora: LanguageRecipe, data: Path) -> list[Figure]:
    """Weights, and the most that a step holds, in nf4 and in full precision; the same adapter on the same model."""
    content = lora.model_dump(mode="json")
    content["train"]["micro_batch"] = 4  # so many are measured as they are, more would be extrapolated
    content["model"]["start"] = str(_save_wider(Path(str(lora.model.start)), data / "wider"))
    told = {}
    for precision in ("fp32", "nf4"):
        content["model"]["precision"] = precision
        told[precision] = _estimate(LanguageRecipe.model_validate(content), data)
    small, full = told["nf4"], told["fp32"]
    what = "a PaliGemma with a wider decoder, random weights, LoRA of the same rank; tower and embeddings stay in fp32"
    return [
        Figure(
            "qlora_weights_over_lora",
            small.weights / full.weights,
            None,
            "lower",
            f"bytes of the weights in nf4 / in fp32 ({full.weights / 1e6:.0f} MB): {what}",
        ),
        Figure(
            "qlora_peak_over_lora",
            small.total / full.total,
            None,
            "lower",
            f"the most bytes of tensors held in a step of 4 images, QLoRA / LoRA ({full.total / 1e6:.0f} MB): {what}",
        ),
    ]


def _save_wider(start: Path, folder: Path) -> Path:
    """A model whose decoder weighs most, as in a real one; the bundled one is nearly all tower and embeddings."""
    config = PaliGemmaConfig.from_pretrained(start)
    for name, value in WIDER.items():
        setattr(config.text_config, name, value)
    config.projection_dim = config.vision_config.projection_dim = WIDER["hidden_size"]
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    AutoProcessor.from_pretrained(start).save_pretrained(folder)
    return folder


def _estimate(recipe: LanguageRecipe, data: Path) -> MemoryEstimate:
    questions = read_questions(recipe.questions, data, recipe.seed)
    pupil = build_pupil(recipe, questions)
    settings = make_arguments(recipe.train, data / "run", seed=0, evaluated=False, progress=False, stop_after=1)
    with looking(recipe, pupil, questions, QuestionSet((), ())) as (asked, _):
        return estimate_memory(LanguageTrainer(pupil, settings, asked, None, recipe=recipe.train), recipe.train)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    sys.exit(main())
