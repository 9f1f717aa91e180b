"""The detector: real weights find real things, boxes are in the picture's own pixels, nothing unsafe is opened."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from models.detector import Detector, build_network, load_detector
from models.errors import ModelUnavailableError, UnsafeWeightsError
from models.schema import LoadState, ModelSpec, ModelStatus

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "assets" / "bundled" / "yolov8n-coco"
NAMES = ("ant", "bee", "cat")
STATUS = ModelStatus(LoadState.BUNDLED, loaded_from="here")


def a_spec(file: str | None = None) -> ModelSpec:
    return ModelSpec(
        id="some-yolo", name="Some YOLO", task="detection", kind="detector", source="bundled:yolov8n-coco", file=file,
        licence="AGPL-3.0", size_mb=6.4, memory_mb=200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def random_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_network("n", len(NAMES)).state_dict()


@pytest.fixture(scope="module")
def random_folder(random_state, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("yolo")
    save_file(random_state, folder / "model.safetensors", {"names": ",".join(NAMES)})
    return folder


@pytest.fixture(scope="module")
def random_detector(random_folder) -> Detector:
    return load_detector(a_spec(), random_folder, STATUS, device="cpu")


@pytest.fixture(scope="module")
def bundled() -> Detector:
    return load_detector(a_spec(), BUNDLED, STATUS, device="cpu")


@pytest.fixture(scope="module")
def bus() -> Image.Image:
    """810 x 1080 photograph of a bus and four persons, shipped by ultralytics; found without importing it."""
    package = importlib.util.find_spec("ultralytics").submodule_search_locations[0]
    with Image.open(Path(package) / "assets" / "bus.jpg") as picture:
        return picture.convert("RGB")


def overlap(a: np.ndarray, b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)


class BrightBox(nn.Module):
    """Stands in for the network: its one detection is the bounding box of the white pixels it was given."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        rows = []
        for picture in pixels:
            y, x = torch.nonzero(picture.amin(0) > 0.5, as_tuple=True)
            low, high = torch.stack([x.min(), y.min()]), torch.stack([x.max(), y.max()]) + 1
            rows.append(torch.cat([(low + high) / 2, high - low, torch.tensor([0.1, 0.9, 0.2])]))
        return (torch.stack(rows)[:, :, None],)


def bright_detector() -> Detector:
    return Detector(a_spec(), STATUS, BrightBox(), NAMES, device="cpu")


def test_the_bundled_detector_finds_the_bus_and_its_people_where_they_are(bundled, bus):
    found = bundled.detect([bus])[0]
    assert found.size_wh == (810, 1080)
    truth = {"bus": [(22, 231, 807, 752)], "person": [(49, 396, 246, 903), (670, 380, 810, 872), (223, 406, 344, 858)]}
    for label, boxes in truth.items():
        for box in boxes:
            scores = [overlap(mine, box) for mine, name in zip(found.xyxy, found.labels, strict=True) if name == label]
            assert max(scores) > 0.85, (label, box, found)
    assert set(found.labels) == {"bus", "person"}
    assert found.model_id == "some-yolo"
    assert found.status is STATUS


def test_confidence_falls_and_boxes_are_finite_and_inside(bundled, bus):
    found = bundled.detect([bus], confidence=0.01)[0]
    assert len(found) > 5
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert (np.diff(found.confidence) <= 0).all()
    assert found.confidence[-1] >= 0.01
    assert np.isfinite(found.xyxy).all()
    assert (found.xyxy[:, :2] < found.xyxy[:, 2:]).all()
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= (810, 1080, 810, 1080)).all()


@pytest.mark.parametrize(
    "size_wh", [(640, 640), (641, 479), (479, 641), (1, 1), (3, 3000), (3000, 3), (60000, 2), (97, 31), (4001, 2999)]
)
def test_what_fills_the_picture_comes_back_as_the_whole_picture(size_wh):
    found = bright_detector().detect([Image.new("RGB", size_wh, "white")])[0]
    assert found.labels == ("bee",)
    assert found.confidence == pytest.approx([0.9])
    width, height = size_wh
    assert found.xyxy[0] == pytest.approx([0, 0, width, height], rel=1e-6)


@pytest.mark.parametrize("size_wh", [(1000, 600), (600, 1000), (333, 77)])
def test_a_part_of_the_picture_comes_back_within_one_network_pixel(size_wh):
    width, height = size_wh
    box = (width // 4, height // 5, width // 2, height - 9)
    picture = Image.new("RGB", size_wh)
    picture.paste("white", box)
    found = bright_detector().detect([picture])[0]
    assert found.xyxy[0] == pytest.approx(box, abs=max(size_wh) / 640 + 1e-3)


def test_twice_the_size_gives_twice_the_boxes(bundled, bus):
    double = bus.resize((bus.width * 2, bus.height * 2), Image.Resampling.BICUBIC)
    once, twice = bundled.detect([bus, double], confidence=0.6)
    assert once.labels == twice.labels
    assert twice.xyxy / 2 == pytest.approx(once.xyxy, abs=5)


def test_a_margin_of_odd_size_shifts_the_boxes(bundled, bus):
    canvas = Image.new("RGB", (bus.width + 101, bus.height + 33), (114, 114, 114))
    canvas.paste(bus, (71, 19))
    plain, shifted = bundled.detect([bus, canvas], confidence=0.6)
    for box, label in zip(plain.xyxy, plain.labels, strict=True):
        moved = tuple(box + np.array([71, 19, 71, 19]))
        assert (
            max(overlap(mine, moved) for mine, name in zip(shifted.xyxy, shifted.labels, strict=True) if name == label)
            > 0.9
        )


def test_nothing_found_is_empty_arrays_of_the_right_shape(random_detector):
    found = random_detector.detect([Image.new("RGB", (50, 40))], confidence=0.999)[0]
    assert found.xyxy.shape == (0, 4)
    assert found.confidence.shape == (0,)
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.labels == ()
    assert len(found) == 0
    assert random_detector.detect([]) == []


def test_a_batch_of_mixed_sizes_keeps_the_order_and_equals_one_at_a_time(bundled, bus):
    pictures = [bus, bus.rotate(90, expand=True), bus.crop((0, 200, 810, 800)), bus.transpose(0)]
    together = bundled.detect(pictures)
    for picture, found in zip(pictures, together, strict=True):
        alone = bundled.detect([picture])[0]
        assert found.size_wh == picture.size
        assert found.labels == alone.labels
        assert found.xyxy == pytest.approx(alone.xyxy, abs=0.05)


def test_the_most_confident_are_kept_when_there_are_too_many(random_detector):
    picture = Image.effect_noise((200, 200), 80).convert("RGB")
    many = random_detector.detect([picture], confidence=0.0, max_detections=50)[0]
    few = random_detector.detect([picture], confidence=0.0, max_detections=5)[0]
    assert (len(many), len(few)) == (50, 5)
    assert few.confidence == pytest.approx(many.confidence[:5])
    assert set(many.labels) <= set(NAMES)


@pytest.mark.parametrize("wrong", [{"confidence": 1.1}, {"iou": -0.1}, {"max_detections": 0}])
def test_senseless_thresholds_are_refused(random_detector, wrong):
    with pytest.raises(ValueError, match="must lie in"):
        random_detector.detect([Image.new("RGB", (9, 9))], **wrong)


def test_two_threads_get_their_own_right_answers(bundled, bus):
    pictures = [bus, bus.crop((0, 200, 810, 800))]
    alone = [bundled.detect([picture])[0] for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda picture: bundled.detect([picture])[0], pictures * 3))
    for found, expected in zip(together, alone * 3, strict=True):
        assert found.labels == expected.labels
        assert found.xyxy == pytest.approx(expected.xyxy, abs=1e-3)


def test_detecting_in_inference_mode_leaves_a_network_that_can_be_explained(random_folder):
    detector = load_detector(a_spec(), random_folder, STATUS, device="cpu")
    picture = Image.new("RGB", (64, 64), "white")
    with torch.inference_mode():
        detector.detect([picture])
    pixels = torch.zeros(1, 3, 640, 640, requires_grad=True)
    detector.module(pixels)[0].sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert not detector.module.training


def test_half_precision_weights_load_as_single_precision(random_state, random_detector, tmp_path):
    half = {name: value.half() if value.is_floating_point() else value for name, value in random_state.items()}
    save_file(half, tmp_path / "mine.safetensors", {"names": ",".join(NAMES)})
    detector = load_detector(a_spec(), tmp_path / "mine.safetensors", STATUS, device="cpu")
    assert {value.dtype for value in detector.module.parameters()} == {torch.float32}
    theirs = dict(random_detector.module.named_parameters())
    torch.testing.assert_close(dict(detector.module.named_parameters()), theirs, rtol=1e-3, atol=1e-4)


def test_the_named_file_comes_first_and_the_bundled_name_serves_when_it_is_missing(
    random_folder, random_state, tmp_path
):
    assert load_detector(a_spec("yolov8n.pt"), random_folder, STATUS, device="cpu").names == NAMES
    save_file(random_state, tmp_path / "other.safetensors", {"names": "x,y,z"})
    save_file(random_state, tmp_path / "model.safetensors", {"names": ",".join(NAMES)})
    assert load_detector(a_spec("other.safetensors"), tmp_path, STATUS, device="cpu").names == ("x", "y", "z")


class Trap:
    """A pickle that runs a command when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["yolov8n.pt", "weights.bin", "weights.ckpt", "weights.pth"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, name):
    mark = tmp_path / "ran"
    torch.save({"model": Trap(mark)}, tmp_path / name)
    with pytest.raises(UnsafeWeightsError, match=r"not opened.*\.safetensors") as caught:
        load_detector(a_spec(), tmp_path / name, STATUS)
    assert not mark.exists()
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_or_one_without_a_network_is_refused(tmp_path, random_state):
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    torch.save({"model": dict(random_state)}, tmp_path / "state.pt")
    for name in ("damaged.pt", "state.pt"):
        with pytest.raises(UnsafeWeightsError, match=r"use a \.safetensors file"):
            load_detector(a_spec(), tmp_path / name, STATUS)


def test_an_ultralytics_checkpoint_loads_by_the_restricted_loader(random_folder, random_detector, tmp_path):
    network = load_detector(a_spec(), random_folder, STATUS, device="cpu").module
    network.names = dict(enumerate(NAMES))
    torch.save({"model": network.half(), "ema": None, "epoch": -1}, tmp_path / "yolov8n.pt")
    detector = load_detector(a_spec("yolov8n.pt"), tmp_path, STATUS, device="cpu")
    assert detector.names == NAMES
    picture = Image.effect_noise((100, 60), 80).convert("RGB")
    mine, theirs = (one.detect([picture], confidence=0.0)[0].confidence for one in (detector, random_detector))
    assert mine == pytest.approx(theirs, abs=1e-3)


def test_files_that_hold_no_detector_are_named_with_what_to_do(tmp_path, random_state):
    save_file(random_state, tmp_path / "nameless.safetensors")
    save_file(random_state, tmp_path / "two.safetensors", {"names": "a,b"})
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"names": "a"})
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 40)
    cases = {
        "nameless.safetensors": "add the metadata 'names'",
        "two.safetensors": "does not hold a YOLOv8 detector with 2 classes",
        "other.safetensors": "use a yolov8n",
        "damaged.safetensors": "get the file again",
        "absent.safetensors": "put the weights there",
    }
    for name, words in cases.items():
        with pytest.raises(ModelUnavailableError, match=words) as caught:
            load_detector(a_spec(), tmp_path / name, STATUS)
        assert "\n" not in str(caught.value)


def test_loading_changes_nothing_else_in_the_process_and_stays_offline(random_folder, tmp_path):
    script = """
        import os, socket, sys, warnings
        from pathlib import Path
        import cv2, numpy, torch
        from PIL import Image
        import models.detector
        from models.schema import LoadState, ModelSpec, ModelStatus
        assert "ultralytics" not in sys.modules, "imported with our module"

        def refuse(*arguments, **options):
            raise AssertionError("the network was asked")
        socket.getaddrinfo = socket.socket.connect = refuse

        def state():
            return {
                "open": Image.open, "save": torch.save, "load": torch.load, "imread": cv2.imread,
                "filters": warnings.filters[:],
                "threads": (cv2.getNumThreads(), torch.get_num_threads()), "numpy": str(numpy.get_printoptions()),
                "torch": repr(torch.rand(40, generator=torch.Generator().manual_seed(0))), "hook": sys.excepthook,
                "environment": {k: v for k, v in os.environ.items() if k not in models.detector.SAFE_ENVIRONMENT},
            }
        before = state()
        spec = ModelSpec(
            id="y", name="Y", task="detection", kind="detector", source="s", licence="L", size_mb=1, memory_mb=1
        )
        detector = models.detector.load_detector(spec, Path(sys.argv[1]), ModelStatus(LoadState.BUNDLED))
        detector.detect([Image.new("RGB", (64, 48))])
        after = state()
        assert before == after, [(k, before[k], after[k]) for k in before if before[k] != after[k]]

        import ultralytics.utils as utils
        from ultralytics.utils import checks
        assert utils.SAFE_LOAD and not utils.AUTOINSTALL and not checks.AUTOINSTALL and not utils.VERBOSE
        assert not utils.SETTINGS["sync"] and not utils.is_online()
        assert not Path(utils.USER_CONFIG_DIR).is_relative_to(Path.home())
        try:
            Image.open(sys.argv[0])
        except Image.UnidentifiedImageError:
            pass
    """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(script))
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "ULTRALYTICS_", "XDG_", "OMP_"))}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "YOLO_AUTOINSTALL": "true"}
    done = subprocess.run(
        [sys.executable, program, random_folder],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(home.rglob("*ltralytics*"))
    assert not list(Path(tmp_path).glob("runs*"))
