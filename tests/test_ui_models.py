"""The Models tab without a browser: real loader, tiny real models, no server."""

from dataclasses import replace
from html.parser import HTMLParser
from threading import Event

import pytest
import torch

from models.errors import ZooError
from models.schema import LoadState, ModelSpec, ModelStatus
from ui.inventory import Holding, Inventory, needs_mb, take_inventory
from ui.model_table import megabytes, render_inventory, render_memory
from ui.models import ModelListeners
from ui.services import Services
from ui.text import LANGUAGES, say

EVIL = "<img src=x onerror=alert(1)>\"'&${alert(2)}{{value}}`"


class Rows(HTMLParser):
    """Model id to the words of its row, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: dict[str, str] = {}
        self.tags: set[str] = set()
        self.picks: list[str] = []
        self._row = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._row = dict(attrs).get("data-model", self._row) or ""
        self.picks += [value for name, value in attrs if name == "data-pick"]

    def handle_data(self, data):
        self.words[self._row] = self.words.get(self._row, "") + data + " "


@pytest.fixture
def services(tiny_loader) -> Services:
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=())


@pytest.fixture
def listeners(services) -> ModelListeners:
    return ModelListeners(services)


def spec(**values) -> ModelSpec:
    fields = {
        "id": "one", "name": "One", "task": "deepfake", "kind": "vlm", "family": "paligemma", "source": "org/one",
        "revision": "main", "licence": "MIT", "size_mb": 6, "memory_mb": 900,
    }  # fmt: skip
    return ModelSpec(**(fields | values))


def table(holding: Holding, free_mb: float = 4000.0, language: str = "en") -> str:
    return render_inventory(language, Inventory({"deepfake": (holding,)}, free_mb, on_gpu=False))


READY = ModelStatus(LoadState.FINE_TUNED, "org/one@abc", weights_sha256="0123456789abcdef" * 4)


def test_every_entry_is_listed_under_its_question(listeners, services):
    rows = Rows(listeners.show("en")["table"]["value"])
    assert set(services.zoo.specs) <= set(rows.words)
    assert "Private: its owner decides" in rows.words["wild-fake"]
    assert "Aaditya2763/wild-fake-detector" in rows.words["wild-fake"]
    assert "95.4%" in rows.words["bundled-resnet"]
    assert "load|tiny-vit" in rows.picks


def test_loading_and_unloading_change_the_row(listeners, services):
    first, *_, last = listeners.press("en", "load|tiny-vit")
    assert "Loading Tiny vit" in first["news"]["value"]
    assert services.loader.loaded == ("tiny-vit",)
    rows = Rows(last["table"]["value"])
    digest = services.loader.status("tiny-vit").weights_sha256
    assert digest
    assert digest in rows.words["tiny-vit"]
    assert "unload|tiny-vit" in rows.picks
    assert last["table"]["busy"] == {}
    assert "Tiny vit is loaded" in last["news"]["value"]
    (unloaded,) = listeners.press("en", "unload|tiny-vit")
    assert services.loader.loaded == ()
    assert "load|tiny-vit" in Rows(unloaded["table"]["value"]).picks


def test_progress_marks_the_row_for_every_visitor(listeners, services, monkeypatch):
    monkeypatch.setattr("ui.services.REPORT_EVERY_S", 0.01)
    seen: list[dict] = []
    noticed = Event()

    def slow(model_id):
        services.board.tell(model_id, 0.25, "downloading: 86 of 343 MB")
        assert noticed.wait(20)

    monkeypatch.setattr(services.loader, "load", slow)
    for step in listeners.press("en", "load|tiny-vit"):
        busy = listeners.show("en")["table"]["busy"]  # as another visitor's page reads it
        if busy and step.get("table", {}).get("busy"):
            seen.append(busy)
            noticed.set()
    assert seen[0] == {"tiny-vit": {"share": 0.25, "text": "downloading: 86 of 343 MB"}}
    assert listeners.show("en")["table"]["busy"] == {}


def test_model_that_cannot_be_had_says_why_and_what_to_do(listeners):
    *_, last = listeners.press("en", "load|wild-fake")
    assert 'role="alert"' in last["news"]["value"]
    assert "wild-fake" in last["news"]["value"]
    assert "unavailable" in Rows(last["table"]["value"]).words["wild-fake"]


def test_stand_in_is_no_success(listeners, services, monkeypatch):
    stands_in = ModelStatus(LoadState.BUNDLED, "bundled-resnet", "bundled-resnet answers instead: gone", "try again")
    monkeypatch.setattr(services.loader, "load", lambda model_id: None)
    monkeypatch.setattr(services.loader, "status", lambda model_id: stands_in)
    *_, last = listeners.press("en", "load|dima806-deepfake")
    assert "could not be loaded: bundled-resnet answers instead" in last["news"]["value"]


def test_pressing_load_again_tries_again(listeners, services, monkeypatch):
    forgotten = []
    monkeypatch.setattr(services.loader, "release", forgotten.append)
    list(listeners.press("en", "load|tiny-vit"))
    assert forgotten == ["tiny-vit"]


def test_unexpected_failure_reaches_the_visitor_and_frees_the_row(services, monkeypatch):
    def breaks(model_id):
        raise ZeroDivisionError

    monkeypatch.setattr(services.loader, "load", breaks)
    with pytest.raises(ZeroDivisionError):
        list(services.load("tiny-vit"))
    assert services.board.under_way == {}


def test_need_is_held_against_what_is_free():
    holding = Holding(spec(), READY, loaded=False, needs_mb={"fp32": 900.0, "nf4": 300.0})
    assert 'aria-label="22% of the free memory"' in table(holding)
    assert "900 MB in fp32" in table(holding)
    assert "nf4" not in table(holding)
    assert "350 MB are free: too little" in table(holding, free_mb=350)
    assert "300 MB in nf4" in table(holding, free_mb=350)
    assert "too little" not in table(replace(holding, loaded=True), free_mb=350)


def test_needs_of_vision_language_models_follow_their_precision():
    cpu = torch.device("cpu")
    assert needs_mb(spec(memory_mb=1000), cpu) == {"fp32": 2000.0, "nf4": pytest.approx(281.25, rel=0.01)}
    assert needs_mb(spec(memory_mb=1000, precision="bf16"), cpu)["bf16"] == 1000.0
    assert needs_mb(spec(memory_mb=1000, precision="nf4"), cpu) == {"nf4": pytest.approx(281.25, rel=0.01)}
    assert needs_mb(spec(kind="classifier", family=None), cpu) == {"": 900.0}


def test_gated_model_names_the_pages_and_remote_code_the_switch():
    holding = Holding(
        spec(access="gated", remote_code=True), READY, False, {"": 1.0}, ("https://hub/org/one", "https://hub/b")
    )
    words = Rows(table(holding)).words["one"]
    assert "accept its licence with your own account at https://hub/org/one https://hub/b" in words
    assert "--trust one" in words
    assert "vision-language model, paligemma" in words
    assert READY.weights_sha256 in words


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_nothing_from_outside_becomes_markup(language):
    entry = spec(name=EVIL, licence=EVIL, family=EVIL, access="private")
    status = ModelStatus(LoadState.UNAVAILABLE, EVIL, EVIL, EVIL, EVIL)
    html = table(Holding(entry, status, False, {EVIL: 1.0}, (EVIL,)), language=language)
    assert "img" not in Rows(html).tags
    assert not set("{}$`") & set(html)


def test_pages_are_those_of_the_hub_in_use(services):
    holdings = {h.spec.id: h for entries in take_inventory(services).holdings.values() for h in entries}
    hub = services.loader.hub.endpoint
    assert holdings["organika-sdxl"].pages == (f"{hub}/Organika/sdxl-detector", f"{hub}/umm-maybe/AI-image-detector")
    assert holdings["tiny-vit"].pages == ()


def test_memory_says_what_is_free_and_how_many_are_loaded(services):
    inventory = take_inventory(services)
    assert inventory.free_mb > 10
    words = render_memory("en", inventory)
    assert say("en", "zoo.loaded_of", count=0) in words
    assert "on this machine" in words or inventory.on_gpu


@pytest.mark.parametrize(("amount", "shown"), [(6, "6 MB"), (6.6, "6.6 MB"), (343, "343 MB"), (5850, "5.8 GB")])
def test_sizes_read_well(amount, shown):
    assert megabytes(amount) == shown


def test_unknown_model_is_refused_in_one_line(listeners):
    with pytest.raises(ZooError, match="no model is called"):
        list(listeners.press("en", "load|no-such"))
