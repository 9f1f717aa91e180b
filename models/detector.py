"""YOLOv8: RGB images -> ``Detections`` in pixels of the original image.

The only module, with the detector's training file, that imports ultralytics, and only when a detector is first loaded.
The network, the letterbox and the non-maximum suppression are ultralytics' own; its predictor is left out, because that
downloads, logs and keeps one image's results in shared state.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.errors import ModelUnavailableError, UnsafeWeightsError
from models.schema import Detections, ModelSpec, ModelStatus

WEIGHTS_NAME = "model.safetensors"
IMAGE_SIZE_PX = 640
STRIDE_PX = 32
BATCH = 16

# ultralytics reads these once, while it is imported; they stay set so that worker processes inherit them.
SAFE_ENVIRONMENT = {
    "ULTRALYTICS_SAFE_LOAD": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
}
# Without torchvision loaded, ultralytics suppresses boxes in a Python loop, a hundred times slower on crowded pictures.
_PARTS = ("torchvision", "ultralytics.data.augment", "ultralytics.nn.tasks", "ultralytics.utils.nms")
_INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "vscode_msg")
_SIZE_BY_WIDTH = {16: "n", 32: "s", 48: "m", 64: "l", 80: "x"}  # output channels of YOLOv8's first convolution
_FIRST_WEIGHT = "model.0.conv.weight"
_IMPORT_LOCK = Lock()


class Detector:
    """A loaded YOLOv8.

    Attributes:
        spec: the zoo entry that was asked for.
        status: what stands behind the answers.
        lock: held around every forward pass.
        module: ultralytics' ``DetectionModel`` in evaluation mode, float32.
        names: class names by index.
        image_size_px: longer side of the network's input.
    """

    def __init__(
        self,
        spec: ModelSpec,
        status: ModelStatus,
        module: nn.Module,
        names: tuple[str, ...],
        *,
        image_size_px: int = IMAGE_SIZE_PX,
        device: torch.device | str | None = None,
    ) -> None:
        self.spec = spec
        self.status = status
        self.lock = RLock()
        self.names = names
        self.image_size_px = image_size_px
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module = module.float().eval().to(self.device)

    def detect(
        self,
        images: Sequence[Image.Image],
        *,
        confidence: float = 0.25,
        iou: float = 0.7,
        max_detections: int = 100,
    ) -> list[Detections]:
        """Finds objects in RGB images of any size.

        Args:
            images: pictures, each of its own size.
            confidence: least confidence of a detection, in [0, 1].
            iou: overlap, in [0, 1], above which the weaker of two boxes of one class is dropped.
            max_detections: most detections per image, the most confident ones.

        Returns:
            One value per image; an image without a detection has arrays of shape (0, 4) and (0,).

        Raises:
            ValueError: ``confidence`` or ``iou`` lies outside [0, 1], or ``max_detections`` below 1.
        """
        if not (0 <= confidence <= 1 and 0 <= iou <= 1 and max_detections >= 1):
            raise ValueError("confidence and iou must lie in [0, 1] and max_detections be at least 1")
        framed = [_letterbox(image, self.image_size_px) for image in images]
        found: dict[int, Detections] = {}
        for positions in _batches([pixels.shape for pixels, _ in framed]):
            batch = torch.from_numpy(np.stack([framed[i][0] for i in positions]))
            for i, rows in zip(positions, self._rows(batch, confidence, iou, max_detections), strict=True):
                found[i] = self._detections(rows, framed[i][1], images[i].size)
        return [found[i] for i in range(len(images))]

    def _rows(self, batch: Tensor, confidence: float, iou: float, max_detections: int) -> Iterator[NDArray[np.float32]]:
        """Uint8 (n, h, w, 3) -> per image float32 (m, 6): xyxy in network pixels, confidence, class."""
        from ultralytics.utils.nms import non_max_suppression

        # The head caches its anchors between calls; made under a caller's inference mode they could never enter
        # autograd again. Suppression gets one image at a time: in a batch its time limit drops the last images.
        with torch.inference_mode(mode=False), torch.no_grad():
            pixels = batch.to(self.device).permute(0, 3, 1, 2).float() / 255
            with self.lock:
                predictions = self.module(pixels)[0]
            for one in predictions.split(1):
                rows = non_max_suppression(one, confidence, iou, max_det=max_detections, nc=len(self.names))[0]
                yield rows.float().cpu().numpy()

    def _detections(
        self, rows: NDArray[np.float32], frame: NDArray[np.float64], size_wh: tuple[int, int]
    ) -> Detections:
        offset, scale = frame
        corners = (rows[:, :4].reshape(-1, 2, 2) - offset) * scale
        boxes = np.clip(corners, 0, size_wh).reshape(-1, 4).astype(np.float32)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # a box in the padding clips to nothing
        return Detections(
            xyxy=boxes[kept],
            confidence=rows[kept, 4],
            labels=tuple(self.names[int(index)] for index in rows[kept, 5]),
            size_wh=size_wh,
            model_id=self.spec.id,
            status=self.status,
        )


def load_detector(
    spec: ModelSpec, path: Path, status: ModelStatus, *, device: torch.device | str | None = None
) -> Detector:
    """Loads a YOLOv8 from a weight file, or from a folder that holds ``spec.file`` or ``model.safetensors``.

    Safetensors carry the class names (comma-separated) in the metadata ``names``. Ultralytics' own ``.pt`` checkpoints
    are read by its restricted loader, which rebuilds known network classes and runs nothing else.

    Args:
        spec: the zoo entry that was asked for.
        path: weight file or folder.
        status: what the caller says stands behind the weights.
        device: torch device; CUDA where present by default.

    Raises:
        ModelUnavailableError: there is no such file, or it does not hold a YOLOv8.
        UnsafeWeightsError: the file is a pickle that holds more than a YOLOv8 network.
    """
    file = _weights_file(spec, Path(path))
    import_ultralytics()
    if file.suffix == ".safetensors":
        module, names = _from_safetensors(file)
    elif file.suffix == ".pt":
        module, names = _from_checkpoint(file)
    else:
        raise UnsafeWeightsError(
            f"{file.name} is not opened: it may be a pickle that runs code; give {spec.id} a .safetensors file or "
            "ultralytics' own .pt checkpoint"
        )
    return Detector(spec, status, module, names, device=device)


def import_ultralytics() -> None:
    """Imports ultralytics offline and without telemetry, and undoes what the import changes in the whole process.

    The import patches ``PIL.Image.open`` (an unreadable file then raises ``ModuleNotFoundError``) and ``torch.save``,
    turns OpenCV's threads off, changes print options, warning filters and thread counts in the environment, and
    writes a settings file into the home folder; here that file lies in a temporary folder, and nothing else remains.
    """
    with _IMPORT_LOCK:
        os.environ.update(SAFE_ENVIRONMENT)
        if "ultralytics" in sys.modules:
            return
        with _process_kept():
            for name in _PARTS:
                importlib.import_module(name)
            from ultralytics.utils import SETTINGS

            SETTINGS.update({name: False for name in _INTEGRATIONS if name in SETTINGS})


def build_network(size: str, class_count: int) -> nn.Module:
    """An untrained YOLOv8 of ultralytics (``DetectionModel``), in training mode.

    Args:
        size: ``n``, ``s``, ``m``, ``l`` or ``x``.
        class_count: number of classes.
    """
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import ROOT, YAML

    # By name ultralytics would look in the working folder first, and on the network last.
    config = YAML.load(ROOT / "cfg" / "models" / "v8" / "yolov8.yaml")
    return DetectionModel({**config, "scale": size, "yaml_file": f"yolov8{size}.yaml"}, nc=class_count, verbose=False)


@contextmanager
def _process_kept() -> Iterator[None]:
    import cv2

    config_dir = tempfile.mkdtemp(prefix="exhibit-ultralytics-")
    atexit.register(shutil.rmtree, config_dir, ignore_errors=True)
    environment, threads, numpy_print = dict(os.environ), cv2.getNumThreads(), np.get_printoptions()
    image_open, torch_save = Image.open, torch.save
    os.environ["YOLO_CONFIG_DIR"] = config_dir
    try:
        with warnings.catch_warnings():
            yield
    finally:
        Image.open, torch.save = image_open, torch_save
        cv2.setNumThreads(threads)
        np.set_printoptions(**numpy_print)
        torch.set_printoptions(profile="default")
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _weights_file(spec: ModelSpec, path: Path) -> Path:
    if path.is_file():
        return path
    candidates = [path / name for name in (spec.file, WEIGHTS_NAME) if name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " or ".join(dict.fromkeys(candidate.name for candidate in candidates))
    raise ModelUnavailableError(f"{spec.id}: no {wanted} in {path}; put the weights there or choose another detector")


def _from_safetensors(file: Path) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        with safe_open(file, framework="pt") as weights:
            metadata = weights.metadata() or {}
            state = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ModelUnavailableError(f"{file} cannot be read ({error}); get the file again") from error
    if "names" not in metadata:
        raise ModelUnavailableError(f"{file} does not name its classes; add the metadata 'names', comma-separated")
    names = tuple(metadata["names"].split(","))
    return _network_of(state, len(names), file), names


def _from_checkpoint(file: Path) -> tuple[nn.Module, tuple[str, ...]]:
    from ultralytics.nn.tasks import DetectionModel, _SafeLoad, torch_safe_load

    remedy = "use a .safetensors file or an official YOLOv8 checkpoint of ultralytics"
    if not _SafeLoad.SUPPORTED:  # torch_safe_load would then quietly open the whole pickle
        raise UnsafeWeightsError(f"{file.name} is not opened: this torch has no restricted loader; {remedy}")
    try:
        checkpoint: dict[str, Any] = torch_safe_load(str(file.resolve()), safe_only=True)[0]
    except (TypeError, ImportError, AttributeError, ValueError, RuntimeError, KeyError) as error:
        raise UnsafeWeightsError(f"{file.name} is not opened: it holds more than a YOLOv8 network; {remedy}") from error
    stored = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(stored, DetectionModel):
        raise UnsafeWeightsError(f"{file.name} holds no detection network; {remedy}")
    names = tuple(str(stored.names[index]) for index in range(len(stored.names)))
    # Only the weights are taken: networks stored by older releases lack attributes that newer code reads.
    return _network_of(stored.state_dict(), len(names), file), names


def _network_of(state: dict[str, Tensor], class_count: int, file: Path) -> nn.Module:
    try:
        module = build_network(_SIZE_BY_WIDTH[len(state[_FIRST_WEIGHT])], class_count)
        module.load_state_dict({name: value.float() for name, value in state.items()})
    except (KeyError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"{file} does not hold a YOLOv8 detector with {class_count} classes; use a yolov8n, s, m, l or x"
        ) from error
    return module


def _letterbox(image: Image.Image, size_px: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Scales an image into a frame whose sides are multiples of the stride, the longer one ``size_px``.

    Returns:
        Pixels uint8 (h, w, 3), and (2, 2): the left and top padding, and original pixels per framed pixel in x and y.
        The scale is that of the rounded size, so that boxes of very thin images return exactly.
    """
    from ultralytics.data.augment import LetterBox

    letterbox = LetterBox(size_px, auto=True, stride=STRIDE_PX)
    pixels = np.asarray(image.convert("RGB"))
    frame = letterbox.get_params({"img": pixels})
    offset = (frame["left"], frame["top"])
    scale = np.divide(image.size, frame["new_unpad"])
    framed: NDArray[np.uint8] = letterbox(image=pixels)
    return framed, np.array([offset, scale])


def _batches(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Positions of equal shapes, at most ``BATCH`` together."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        positions.setdefault(shape, []).append(i)
    for same in positions.values():
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH]
