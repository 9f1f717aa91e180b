"""The zoo: Exhibit's own entries, a user's file merged in, and one clear line for every wrong entry."""

import json

import pytest
import yaml

from models import registry
from models.answers import parse_label
from models.errors import ZooError
from models.families import list_families
from models.registry import is_commit, load_zoo, weights_folder

ENTRY = {
    "id": "mine",
    "name": "Mine",
    "task": "deepfake",
    "kind": "classifier",
    "source": "me/mine",
    "revision": "main",
    "licence": "MIT",
    "size_mb": 10,
    "memory_mb": 50,
}


@pytest.fixture
def zoo_of(tmp_path):
    """Loads the zoo with a user's file of these entries; ``None`` takes a key away."""

    def load(*entries):
        cleaned = [{key: value for key, value in entry.items() if value is not None} for entry in entries]
        (tmp_path / "my.yaml").write_text(yaml.safe_dump({"models": cleaned}), encoding="utf-8")
        return load_zoo(tmp_path / "my.yaml")

    return load


def test_the_own_zoo_holds_the_promised_models():
    zoo = load_zoo()
    assert {spec.source for spec in zoo.specs.values()} >= {
        "bundled:resnet-deepfake",
        "bundled:vit-deepfake",
        "bundled:yolov8n-coco",
        "dima806/deepfake_vs_real_image_detection",
        "Organika/sdxl-detector",
        "umm-maybe/AI-image-detector",
        "Aaditya2763/wild-fake-detector",
    }
    assert {"bundled-resnet", "bundled-vit", "bundled-yolov8n"} <= set(zoo.specs)
    assert set(zoo.tasks) == {"deepfake", "ai-image", "detection", "casework", "charts", "photograph"}
    assert zoo.get("yolov8n").file == "yolov8n.pt"
    private = zoo.get("wild-fake")
    assert (private.access, private.fallback) == ("private", None)
    assert all(spec.trained_on for spec in zoo.specs.values())


def test_the_own_zoo_holds_every_family_with_what_must_be_known_before_loading():
    vlms = {spec.id: spec for spec in load_zoo().specs.values() if spec.kind == "vlm"}
    pairs = {(spec.base, spec.source) for spec in vlms.values()}
    assert pairs >= {
        ("google/paligemma-3b-pt-224", "Donguri-b/paligemma_deepfake_2024"),
        ("HuggingFaceTB/SmolVLM-Base", "Szczurek/smolvlm"),
        ("Qwen/Qwen2-VL-2B-Instruct", "krowiemlekommm/PJN_qwen_2b"),
        ("vikhyatk/moondream2", "krowiemlekommm/PJN_moondream"),
    }
    case = vlms["llava-casework"]
    assert case.base == "llava-hf/llava-v1.6-mistral-7b-hf"
    assert (len(case.answers), case.question) == (
        4,
        "이 이미지는 다음 중 어떤 유형입니까? (0: 관련 없음, 1: 마약 대화 내역 사진, 2: 마약 거래 장소, 3: 마약 원본)",
    )
    assert {spec.family for spec in vlms.values()} == set(list_families())
    assert [spec.id for spec in vlms.values() if spec.remote_code] == ["moondream2-charts"]
    assert vlms["paligemma-deepfake-2024"].access == "gated"
    for spec in vlms.values():
        labels = tuple(spec.answers.values())
        means = {label: (text, *spec.synonyms.get(label, ())) for text, label in spec.answers.items()}
        for text, label in spec.answers.items():
            assert parse_label(text, labels, means) == label


def test_unknown_ids_and_tasks_are_answered_with_the_known_ones():
    zoo = load_zoo()
    with pytest.raises(ZooError, match=r"no model is called 'resnet'; known are: bundled-resnet, bundled-vit"):
        zoo.get("resnet")
    with pytest.raises(ZooError, match=r"no model answers the task 'cats'; known tasks are: deepfake"):
        zoo.for_task("cats")
    assert {spec.task for spec in zoo.for_task("ai-image")} == {"ai-image"}


def test_a_users_entries_are_merged_after_the_own_ones(zoo_of):
    zoo = zoo_of(ENTRY, ENTRY | {"id": "other", "task": "drugs"})
    assert list(zoo.specs)[-2:] == ["mine", "other"]
    assert zoo.for_task("deepfake")[-1].id == "mine"
    assert "drugs" in zoo.tasks


def test_local_folders_are_relative_to_the_zoo_file(zoo_of, tmp_path):
    zoo = zoo_of(ENTRY | {"source": "./weights/mine", "revision": None, "base": "../base"})
    assert zoo.get("mine").source == str(tmp_path.resolve() / "weights" / "mine")
    assert zoo.get("mine").base == str(tmp_path.resolve().parent / "base")
    assert weights_folder(zoo.get("mine").source) == tmp_path.resolve() / "weights" / "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour: unknown key; known are: id, name"),
        ({"licence": None}, "licence: this key is missing"),
        ({"licence": ""}, "licence: string should have at least 1 character"),
        ({"licence": "  "}, "licence: this key is empty"),
        ({"revision": None}, "revision: a hub source needs a commit, a tag or main"),
        ({"revision": 1234567}, "revision: must be text; write it in quotes"),
        ({"revision": "../main"}, "is not a commit, a tag or main"),
        ({"source": "./folder"}, "revision: only a hub source has one"),
        ({"source": "bundled:resnet-deepfake"}, "revision: only a hub source has one"),
        ({"source": "bundled:../../etc", "revision": None}, "is not bundled:NAME with a plain name"),
        ({"source": "folder"}, r"neither bundled:NAME, nor org/name, nor a folder \(write ./folder\)"),
        ({"source": "https://example.org/a"}, "neither bundled:NAME"),
        ({"fallback": "nothing"}, "fallback: 'nothing' is unknown; bundled are: bundled-resnet"),
        ({"fallback": "dima806-deepfake"}, "is not bundled, so it may be missing just as well"),
        ({"fallback": "bundled-yolov8n"}, "is a detector for detection, not a classifier for deepfake"),
        ({"task": "drugs", "fallback": "bundled-vit"}, "is a classifier for deepfake, not a classifier for drugs"),
        ({"kind": "oracle"}, "kind: input should be 'classifier', 'detector', 'vlm' or 'clip'"),
        ({"kind": "detector"}, "file: a detector from the hub needs the name of its weight file"),
        ({"kind": "detector", "file": "../../x.pt"}, "must lie inside the source"),
        ({"file": "model.bin"}, "file: only a detector names one weight file"),
        ({"base": "nonsense"}, "base: 'nonsense' is neither org/name nor a folder"),
        ({"accuracy": 98}, "accuracy: input should be less than or equal to 1"),
        ({"size_mb": 0}, "size_mb: input should be greater than 0"),
        ({"labels": {"Fake": 1}}, "labels.Fake: must be text"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line_that_names_it(zoo_of, change, message):
    with pytest.raises(ZooError, match=message) as refusal:
        zoo_of(ENTRY | change)
    assert "entry 'mine'" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "pydantic" not in str(refusal.value)


VLM = ENTRY | {
    "kind": "vlm",
    "family": "paligemma",
    "question": "Is it real?",
    "answers": {"0": "fake", "1": "real"},
    "base": "org/base",
    "base_revision": "main",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "oracle"}, "family: 'oracle' is none of .*paligemma"),
        ({"family": None}, "family: None is none of"),
        ({"question": " "}, "question: write what the model is asked"),
        ({"answers": {"0": "fake"}}, "answers: write at least two texts"),
        ({"answers": {"0": "fake", "1": "fake"}}, "each with another label"),
        ({"answers": {0: "fake", 1: "real"}}, "answers.0.*: must be text|answers: write"),
        ({"synonyms": {"unreal": ["no"]}}, "synonyms: 'unreal' is no label of `answers`"),
        ({"base_revision": None}, "base_revision: a base on the hub needs one"),
        ({"base": "./base"}, "base_revision: a base on the hub needs one, and only that"),
        ({"base_revision": "../x"}, "base_revision: '../x' is not a commit"),
        ({"base": "bundled:../x"}, "base: 'bundled:../x' is neither"),
        ({"remote_code": True, "revision": "v1"}, "revision: code that runs must not change unseen"),
        ({"precision": "fp8"}, "precision: input should be 'auto', 'fp32', 'bf16', 'int8' or 'nf4'"),
        ({"kind": "classifier"}, "only an entry of kind vlm has this key"),
        ({"fallback": "bundled-vit"}, "is a classifier for deepfake, not a vlm for deepfake"),
    ],
)
def test_a_wrong_vision_language_entry_is_refused_in_one_line(zoo_of, change, message):
    with pytest.raises(ZooError, match=message) as refusal:
        zoo_of(VLM | change)
    assert "\n" not in str(refusal.value)


def test_a_vision_language_entry_may_name_a_bundled_base(zoo_of):
    spec = zoo_of(VLM | {"base": "bundled:small", "base_revision": None, "synonyms": {"fake": ["AI"]}}).get("mine")
    assert (spec.base, spec.answers, spec.synonyms) == ("bundled:small", VLM["answers"], {"fake": ("AI",)})


def test_an_id_may_not_be_given_twice_nor_take_an_own_one(zoo_of):
    with pytest.raises(ZooError, match="entry 'mine': this id is taken already"):
        zoo_of(ENTRY, ENTRY)
    with pytest.raises(ZooError, match="entry 'bundled-vit': this id is taken already"):
        zoo_of(ENTRY | {"id": "bundled-vit"})


def test_an_entry_without_an_id_is_named_by_its_number(zoo_of):
    with pytest.raises(ZooError, match="entry number 2: id: this key is missing"):
        zoo_of(ENTRY, ENTRY | {"id": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [", "not valid YAML"),
        ("- id: x", "one key, `models`, with a list of entries"),
        ("models: {}", "one key, `models`"),
        ("models: []\nextra: 1", "one key, `models`"),
        ("models: [text]", "entry number 1 is not a mapping"),
        ("models: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_zoo_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ZooError, match=message) as refusal:
        load_zoo(tmp_path / "bad.yaml")
    assert "bad.yaml" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ZooError, match=r"none\.yaml: the zoo file cannot be read"):
        load_zoo(tmp_path / "none.yaml")


def test_a_bundled_models_accuracy_is_the_one_measured_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "BUNDLED_ROOT", tmp_path)
    assert load_zoo().get("bundled-resnet").accuracy is None
    folder = tmp_path / "resnet-deepfake"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"validation": {"accuracy": 0.951}}))
    assert load_zoo().get("bundled-resnet").accuracy == 0.951
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(ZooError, match=r"metrics\.json: no accuracy"):
        load_zoo()


def test_only_a_full_hash_counts_as_a_commit():
    assert is_commit("0123456789abcdef" * 2 + "01234567")
    assert not any(is_commit(name) for name in ("main", "v1.0", "0123456", "g" * 40))
