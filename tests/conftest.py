"""Tiny models of the real architectures, saved with the real classes and loaded through our own code."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of a tiny ResNet and a tiny ViT for fake/real, weights from a fixed seed."""
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    root = tmp_path_factory.mktemp("tiny")
    labels = {"id2label": {0: "fake", 1: "real"}, "label2id": {"fake": 0, "real": 1}}
    torch.manual_seed(0)
    models = {
        "resnet": ResNetForImageClassification(
            ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2, **labels
            )
        ),
        "vit": ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                num_labels=2,
                **labels,
            )
        ),
    }
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    for name, model in models.items():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in models}


@pytest.fixture(scope="session")
def tiny_zoo_file(tiny_folders, tmp_path_factory) -> Path:
    """A user's zoo file with the tiny models as ``tiny-resnet`` and ``tiny-vit``."""
    path = tmp_path_factory.mktemp("zoo") / "zoo.yaml"
    entries = [
        {
            "id": f"tiny-{name}",
            "name": f"Tiny {name}",
            "task": "deepfake",
            "kind": "classifier",
            "source": str(folder),
            "licence": "AGPL-3.0-only",
            "size_mb": 1,
            "memory_mb": 10,
        }
        for name, folder in tiny_folders.items()
    ]
    path.write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return path


@pytest.fixture
def tiny_loader(tiny_zoo_file):
    """A loader that knows the tiny models beside the bundled ones."""
    from models.loading import ModelLoader
    from models.registry import load_zoo

    return ModelLoader(load_zoo(tiny_zoo_file), offline=True)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory) -> Callable[[str], Path]:
    """Family name to the folder of a tiny model of that family, built once; see ``tests/tiny_vlms.py``."""
    from tests.tiny_vlms import build_tiny

    root = tmp_path_factory.mktemp("vlms")
    built: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in built:
            built[family] = build_tiny(family, root / family)
        return built[family]

    return folder


@pytest.fixture(scope="session")
def page_zoo_file(tiny_vlm, tmp_path_factory) -> Path:
    """A zoo file for the served page: a tiny PaliGemma with an adapter, for a question of its own."""
    from tests.tiny_adapters import build_adapter

    root = tmp_path_factory.mktemp("page-zoo")
    base = tiny_vlm("paligemma")
    entry = {
        "id": "tiny-paligemma",
        "name": "Tiny PaliGemma",
        "task": "tiny-question",
        "kind": "vlm",
        "family": "paligemma",
        "source": str(build_adapter("paligemma", base, root / "adapter")),
        "base": str(base),
        "question": "Is this image made by AI?",
        "answers": {"0": "fake", "1": "real"},
        "licence": "AGPL-3.0-only",
        "size_mb": 1,
        "memory_mb": 10,
    }
    path = root / "zoo.yaml"
    # The pictures for the README show what every visitor sees, without the tests' own model.
    entries = [] if "EXHIBIT_SCREENSHOTS" in os.environ else [entry]
    path.write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def server(page_zoo_file, tmp_path_factory):
    """The address of one page for all tests in a browser."""
    from tests.browsing import serve
    from tests.saved_reports import save_reports

    reports = save_reports(tmp_path_factory.mktemp("reports"))
    with serve(page_zoo_file, tmp_path_factory.mktemp("server") / "log.txt", "--reports", str(reports)) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """A running Chromium."""
    from tests.browsing import CHROMIUM, FLAGS, PATIENCE_MS

    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS)
        yield running
        running.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page for a new visitor; fails the test when anything outside this machine is asked for."""
    from tests.browsing import Visits

    visits = Visits(browser, server)
    yield visits
    visits.close()
    assert visits.outside == []
    assert visits.broken == []
