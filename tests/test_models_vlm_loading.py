"""From zoo entries to vision-language models: the chain, shared networks, trust, memory, and a family of one's own."""

import gc
import hashlib
import json
import shutil
import sys
import weakref

import numpy as np
import pytest
import yaml
from PIL import Image

from models import families, memory, registry
from models.errors import ModelUnavailableError, UnsafeWeightsError, ZooError
from models.hub import Hub, Pins
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LoadState
from tests.hub_standin import running_hub
from tests.tiny_adapters import build_adapter

ENTRY = {
    "name": "M",
    "task": "deepfake",
    "kind": "vlm",
    "licence": "MIT",
    "size_mb": 7,
    "memory_mb": 50,
    "family": "paligemma",
    "question": "Is this image made by AI?",
    "answers": {"0": "fake", "1": "real"},
}


@pytest.fixture
def standin():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def adapters(tiny_vlm, tmp_path_factory):
    """Two adapters of the tiny PaliGemma."""
    root = tmp_path_factory.mktemp("adapters")
    return [build_adapter("paligemma", tiny_vlm("paligemma"), root / name, seed=ord(name)) for name in "ab"]


@pytest.fixture
def loader_of(tmp_path, monkeypatch, standin):
    monkeypatch.setattr(registry, "BUNDLED_ROOT", tmp_path / "bundled")
    monkeypatch.setattr("models.hub.get_token", lambda: None)

    def make(*entries, **options):
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"models": [ENTRY | entry for entry in entries]}))
        hub = Hub(endpoint=standin.url, cache=tmp_path / "hub", pins=Pins(tmp_path / "lock.json"), answer_s=2)
        return ModelLoader(load_zoo(tmp_path / "zoo.yaml"), hub=hub, device="cpu", **options)

    return make


def remote(model_id="mine", **more):
    return {
        "id": model_id,
        "source": "someone/tuned",
        "revision": "main",
        "base": "someone/base",
        "base_revision": "main",
    } | more


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def digest(*files):
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_an_adapter_and_its_base_come_from_the_hub(loader_of, standin, tiny_vlm, adapters):
    base = tiny_vlm("paligemma")
    own = standin.add("someone/tuned", adapters[0]).refs["main"]
    below = standin.add("someone/base", base).refs["main"]
    loader = loader_of(remote())
    assert "the first use downloads 7 MB" in loader.status("mine").reason
    live = loader.load("mine")
    assert live.status.state is LoadState.FINE_TUNED
    assert live.status.loaded_from == f"someone/tuned@{own} on someone/base@{below}"
    assert live.status.weights_sha256 == digest(base / "model.safetensors", adapters[0] / "adapter_model.safetensors")
    asked = {path.rpartition("/")[2] for path in standin.paths("GET")}
    assert {"adapter_model.safetensors", "model.safetensors", "tokenizer.json"} <= asked
    again = loader_of(remote())
    again.hub.offline = True
    assert (again.status("mine").state, again.status("mine").reason) == (LoadState.FINE_TUNED, "")
    assert again.load("mine").predict([picture()])[0].logits == live.predict([picture()])[0].logits


def test_the_base_answers_where_the_adapter_cannot_be_had_then_the_bundled_model(
    loader_of, standin, tiny_vlm, adapters, tmp_path
):
    shutil.copytree(tiny_vlm("paligemma"), tmp_path / "bundled" / "small")
    shutil.copytree(adapters[1], tmp_path / "bundled" / "small-a")
    bundled = {
        "id": "own",
        "source": "bundled:small-a",
        "base": "bundled:small",
        "answers": {"no": "real", "yes": "fake"},
    }
    standin.add("someone/tuned", adapters[0], "private")
    standin.add("someone/base", tiny_vlm("paligemma"))
    live = loader_of(remote(fallback="own"), bundled).load("mine")
    assert live.status.state is LoadState.BASE
    assert live.status.loaded_from.startswith("someone/base@")
    assert "someone/tuned is private" in live.status.reason
    standin.repos["someone/base"].fault = "gated"
    loader = loader_of(remote(fallback="own", base="someone/gone"), bundled)
    live = loader.load("mine")
    assert (live.status.state, live.spec.id) == (LoadState.BUNDLED, "mine")
    assert live.status.reason.count(";") == 1
    # It is asked in its own words, but means the same labels.
    assert live.answers == bundled["answers"]
    prediction = live.predict([picture()])[0]
    assert prediction.model_id == "mine"
    assert prediction.logits == loader.load("own").predict([picture()])[0].logits


def test_entries_on_one_base_share_its_network_and_the_base_is_asked_by_its_own_id(loader_of, tiny_vlm, adapters):
    base = {"base": str(tiny_vlm("paligemma")), "revision": None}
    one, two = ({"id": name, "source": str(folder)} | base for name, folder in zip("ab", adapters, strict=True))
    loader = loader_of(one, two, {"id": "whole", "source": base["base"]})
    first, second, whole = (loader.load(name) for name in ("a", "b", "whole"))
    assert first.core is second.core is whole.core
    assert first.lock is second.lock
    answers = {live.spec.id: live.predict([picture()])[0].logits["fake"] for live in (first, second, whole)}
    assert len(set(answers.values())) == 3
    assert first.predict([picture()])[0].logits["fake"] == answers["a"]
    plain = loader.load("a@base")
    assert (plain.spec.id, plain.status.state) == ("a@base", LoadState.BASE)
    assert plain.status.weights_sha256 == whole.status.weights_sha256 != first.status.weights_sha256
    assert plain.predict([picture()])[0].logits["fake"] == answers["whole"]
    beside = first.without_adapter()
    assert (beside.spec.id, beside.status.state) == ("a@base", LoadState.BASE)
    assert beside.predict([picture()])[0].logits["fake"] == answers["whole"]
    assert loader.status("b@base").state is LoadState.BASE
    with pytest.raises(ZooError, match="whole has no base to compare with"):
        loader.load("whole@base")
    with pytest.raises(ZooError, match="no model is called 'x'"):
        loader.load("x@base")
    loader.release("a")
    assert loader.loaded == ("b", "whole")
    assert loader.load("a").core is second.core


def test_a_network_is_freed_with_the_last_model_that_uses_it(loader_of, tiny_vlm, adapters):
    base = str(tiny_vlm("paligemma"))
    loader = loader_of({"id": "a", "source": str(adapters[0]), "base": base}, {"id": "b", "source": base}, max_models=1)
    live = loader.load("a")
    live.predict([picture()])
    network = weakref.ref(live.core)
    assert loader.load("b").core is live.core
    del live
    assert network() is not None
    gc.disable()
    try:
        loader.load("a", precision="bf16")
        assert network() is None
    finally:
        gc.enable()


def test_another_precision_is_another_network(loader_of, tiny_vlm, adapters):
    loader = loader_of({"id": "a", "source": str(adapters[0]), "base": str(tiny_vlm("paligemma"))})
    whole, small = loader.load("a"), loader.load("a", precision="nf4")
    assert (whole.core.precision, small.core.precision) == ("fp32", "nf4")
    assert loader.load("a", precision="nf4") is small
    assert loader.loaded == ("a",)
    loader.release("a")
    assert loader.loaded == ()


def test_a_general_model_is_said_to_be_a_base(loader_of, standin, tiny_vlm):
    commit = standin.add("someone/base", tiny_vlm("paligemma")).refs["main"]
    loader = loader_of(remote(source="someone/base"))
    assert loader.status("mine").state is LoadState.BASE
    status = loader.load("mine").status
    assert (status.state, status.loaded_from, status.reason) == (LoadState.BASE, f"someone/base@{commit}", "")


def test_an_adapter_alone_says_that_it_needs_a_base(loader_of, adapters):
    with pytest.raises(ModelUnavailableError, match="is an adapter and needs its base"):
        loader_of({"id": "a", "source": str(adapters[0])}).load("a")


def test_an_adapter_made_for_another_base_that_fits_is_doubted_aloud(loader_of, standin, tiny_vlm, adapters, tmp_path):
    folder = shutil.copytree(adapters[0], tmp_path / "other")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "org/other"}))
    standin.add("someone/tuned", folder)
    standin.add("someone/base", tiny_vlm("paligemma"))
    status = loader_of(remote()).load("mine").status
    assert status.reason == "the adapter says it was made for org/other, not someone/base"
    assert status.state is LoadState.FINE_TUNED


def test_too_little_memory_is_a_status_with_a_remedy(loader_of, tiny_vlm, monkeypatch, standin):
    loader = loader_of({"id": "a", "source": str(tiny_vlm("paligemma"))}, remote(memory_mb=8000))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100_000_000)
    status = loader.status("a")
    assert status.state is LoadState.UNAVAILABLE
    assert "GB are free on this machine" in status.reason
    assert "choose the precision" in status.remedy
    with pytest.raises(ModelUnavailableError, match=r"a: it needs about 0\.2 GB in fp32"):
        loader.load("a")
    with pytest.raises(ModelUnavailableError, match=r"mine: it needs about 16\.0 GB in fp32"):
        loader.load("mine")
    assert standin.asked == []
    monkeypatch.undo()
    loader.release("a")
    assert loader.load("a").predict([picture()])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-500]), "cut off"),
        (lambda f: (f / "processor_config.json").unlink(), "has no preprocessor_config.json or processor_config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json or"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            "holds a model of type bert, not paligemma",
        ),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read or names no model_type"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be loaded as paligemma"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "only as a pickle"),
    ],
)
def test_a_damaged_folder_gets_one_clear_line(loader_of, tiny_vlm, tmp_path, damage, message):
    folder = shutil.copytree(tiny_vlm("paligemma"), tmp_path / "damaged")
    damage(folder)
    with pytest.raises(ModelUnavailableError, match=message) as failure:
        loader_of({"id": "a", "source": str(folder)}).load("a")
    assert "\n" not in str(failure.value)
    assert isinstance(failure.value, UnsafeWeightsError) == ("pickle" in message)


def test_weights_that_do_not_fill_the_network_are_refused(loader_of, tiny_vlm, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_vlm("paligemma"), tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "q_proj" in name)
    save_file({key: one for key, one in tensors.items() if key != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnavailableError, match="lacks 1 of the network's weights"):
        loader_of({"id": "a", "source": str(folder)}).load("a")


def test_code_of_a_repository_runs_only_for_an_id_that_is_trusted(loader_of, standin, tiny_vlm):
    standin.add("someone/tuned", tiny_vlm("paligemma"))
    entry = remote(remote_code=True, revision="v1.0", base=None, base_revision=None)
    loader = loader_of(entry)
    status = loader.status("mine")
    assert status.state is LoadState.UNAVAILABLE
    assert status.reason == "mine runs code from its repository, someone/tuned at v1.0"
    assert status.remedy == "read that code, then allow it with --trust mine"
    with pytest.raises(ModelUnavailableError, match="--trust mine"):
        loader.load("mine")
    assert standin.asked == []
    assert loader_of(entry, trusted=["mine"]).load("mine").status.state is LoadState.FINE_TUNED
    with pytest.raises(ZooError, match="no model is called 'theirs'"):
        loader_of(entry, trusted=["theirs"])


def test_fine_tuned_weights_run_in_the_trusted_code_of_their_base(
    loader_of, standin, tmp_path, tmp_path_factory, monkeypatch
):
    from safetensors.torch import load_file, save_file

    from tests.moondream_standin import build_standin

    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "code")
    )
    monkeypatch.setenv("EXHIBIT_CACHE", str(tmp_path / "own"))
    base, tuned = build_standin(tmp_path / "base"), tmp_path / "tuned"
    tuned.mkdir()
    weights = {key: one * 1.01 for key, one in load_file(base / "model.safetensors").items()}
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    (tuned / "evil.py").write_text("raise SystemExit")
    standin.add("someone/tuned", tuned)
    standin.add("someone/base", base)
    entry = remote(family="moondream", remote_code=True, base_revision="v1.0")
    loader = loader_of(entry, trusted=["mine"])
    live = loader.load("mine")
    assert live.status.state is LoadState.FINE_TUNED
    assert " in the code of someone/base@" in live.status.loaded_from
    assert live.status.weights_sha256 == digest(tuned / "model.safetensors")
    assert not any(path.endswith("evil.py") for path in standin.paths("GET"))
    plain = loader.load("mine@base")
    assert plain.status.weights_sha256 == digest(base / "model.safetensors")
    assert plain.predict([picture()])[0].logits != live.predict([picture()])[0].logits


TOY = '''
from models.families.paligemma import PaliGemma


class Toy(PaliGemma):
    """A new family: asked in capitals."""

    name = "toy"

    def prompt(self, processor, question):
        return super().prompt(processor, question.upper())


FAMILY = Toy()
'''


def test_a_new_family_is_one_file_and_one_entry(loader_of, tiny_vlm, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "toy.py").write_text(TOY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "models.families.toy", raising=False)
    folder = str(tiny_vlm("paligemma"))
    loader = loader_of({"id": "new", "source": folder, "family": "toy"}, {"id": "old", "source": folder})
    live = loader.load("new")
    assert live.core.family.name == "toy"
    # The same weights under another family are another network, asked in another way.
    assert live.core is not loader.load("old").core
    shouted = loader.load("old").asking(question=ENTRY["question"].upper())
    assert live.predict([picture()])[0].logits == shouted.predict([picture()])[0].logits
    monkeypatch.delitem(sys.modules, "models.families.toy", raising=False)
