"""One pass of a model that yields its outputs and, at the layers asked for, activations and gradients.

The pass starts with gradients off. The output of the first of those layers to run becomes a leaf and switches them on:
nothing below it is recorded or differentiated, which makes an explanation cost little more than a prediction. Each
further target runs only what lies above that leaf once more, backwards.
"""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from explain.schema import TargetFunction
from models.errors import IncompatibleMethodError

__all__ = ["Capture", "capture"]

_SWITCHED_OFF = (
    "The model switches gradients off around layer {layer!r} (no_grad, inference mode or reentrant gradient "
    "checkpointing): switch that off, or use a method that needs no gradient such as eigencam."
)


@dataclasses.dataclass(frozen=True)
class Capture:
    """What one pass left behind for a batch of n images and k targets, on the CPU and out of the graph.

    Attributes:
        outputs: what ``forward`` returned, detached, on the model's device.
        activations: layer to its output, float32, contiguous, in the layer's own shape (n, ...).
        gradients: layer to d target / d activation, float32, contiguous, (k, n, ...). Zero where a target does not
            depend on the layer.
        values: float32 (k, n), what each target gave for each image.
        forward_s: seconds of the forward pass alone.
    """

    outputs: Any
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    values: Tensor
    forward_s: float


def capture(
    module: nn.Module,
    forward: Callable[[], Any],
    layers: Sequence[str],
    targets: Sequence[TargetFunction] = (),
) -> Capture:
    """Activations and gradients of ``layers`` from one run of ``forward``.

    The model runs in eval mode with its parameters frozen; training flags, ``requires_grad``, ``.grad`` and hooks are
    as before when this returns or raises. Hooks are shared state: hold the model's lock around the call. A layer that
    runs more than once (a shared module, gradient checkpointing) is taken at its first run.

    Args:
        module: the model; images must not influence each other in eval mode, since gradients are those of the sum
            over the batch.
        forward: runs ``module`` once on a batch of n images and returns its outputs.
        layers: dotted names within ``module``; each must give a floating Tensor, or a tuple whose first element is one.
        targets: what to differentiate, each from outputs to (n,) scalars; none if activations suffice.

    Returns:
        The capture, on the CPU.

    Raises:
        IncompatibleMethodError: a layer is unknown, did not run, or gives no floating Tensor; gradients cannot flow
            (inference mode, ``no_grad`` inside the model); a target does not give (n,) scalars.
    """
    modules = _modules(module, layers)
    if torch.is_inference_mode_enabled():
        raise IncompatibleMethodError(
            "Gradients cannot be taken under torch.inference_mode(): leave it (torch.no_grad() is fine) and try again."
        )
    taps = {name: _Tap(name) for name in modules}
    with _evaluating(module), torch.no_grad():
        # Ahead of others: the library's own hooks, which stay from the first pass that asked for hidden states (LLaVA
        # projects one of those), would otherwise pass on the output from before the graph begins, without a gradient.
        handles = [
            modules[name].register_forward_hook(_hook(taps[name], bool(targets)), prepend=True) for name in modules
        ]
        try:
            started = time.perf_counter()
            outputs = _run(forward)
            if any(tap.output is not None and tap.output.is_cuda for tap in taps.values()):
                torch.cuda.synchronize()  # kernels run on after the call returns; their time belongs to the pass
            forward_s = time.perf_counter() - started
            activations = {name: _found(tap) for name, tap in taps.items()}
            if targets and not torch.is_grad_enabled():
                raise IncompatibleMethodError(_SWITCHED_OFF.format(layer=next(iter(taps))))
            values, gradients = _differentiate(outputs, activations, targets)
        finally:
            for handle in handles:
                handle.remove()
    return Capture(
        outputs=_detached(outputs),
        activations={name: _delivered(tensor) for name, tensor in activations.items()},
        gradients=gradients,
        values=values,
        forward_s=forward_s,
    )


@dataclasses.dataclass
class _Tap:
    """A layer under observation, and its first output of the pass."""

    name: str
    output: Tensor | None = None


def _hook(tap: _Tap, differentiate: bool) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that keeps the layer's first output and lets the graph begin there, unless it began below."""

    def keep(_module: nn.Module, _inputs: Any, result: Any) -> Any:  # noqa: ANN401 - a layer may return anything
        if tap.output is not None:
            return None
        tensor = _first_tensor(tap.name, result)
        if not differentiate:
            tap.output = tensor.detach().clone()
            return None
        if torch.is_inference_mode_enabled() or tensor.is_inference():
            raise IncompatibleMethodError(_SWITCHED_OFF.format(layer=tap.name))
        # The pass starts without gradients, so nothing below is recorded; from here on everything is. A model that
        # switches gradients off by itself around this layer sets them back to off when done, which shows at the end.
        torch.set_grad_enabled(True)
        tap.output = tensor if tensor.requires_grad and tensor.grad_fn else tensor.detach().requires_grad_()
        # The rest of the model gets a copy, because an in-place operation (ReLU) would overwrite the kept activation.
        return _with_first(result, tap.output.clone())

    return keep


def _run(forward: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return forward()
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise IncompatibleMethodError(
            "The weights were loaded under torch.inference_mode(), which forbids gradients: load the model outside it."
        ) from error


def _found(tap: _Tap) -> Tensor:
    if tap.output is None:
        raise IncompatibleMethodError(
            f"Layer {tap.name!r} did not run in this pass; choose a layer that the model uses for images."
        )
    return tap.output


def _first_tensor(name: str, result: Any) -> Tensor:  # noqa: ANN401
    tensor = result[0] if isinstance(result, tuple | list) and result else result
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise IncompatibleMethodError(
            f"Layer {name!r} gives {given}, not a floating Tensor or a tuple that begins with one; choose another."
        )
    return tensor


def _with_first(result: Any, tensor: Tensor) -> Any:  # noqa: ANN401
    if isinstance(result, Tensor):
        return tensor
    rest = result[1:]
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(tensor, *rest)
    return type(result)((tensor, *rest))


def _differentiate(
    outputs: Any,  # noqa: ANN401
    activations: Mapping[str, Tensor],
    targets: Sequence[TargetFunction],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Values (k, n) of the targets and gradients by layer (k, n, ...), zeros where a target does not depend on it."""
    if not targets:
        return torch.empty(0, 0), {name: torch.empty(0, *a.shape) for name, a in activations.items()}
    values = [_value(target, outputs) for target in targets]
    sources = list(activations.values())
    rows: list[Sequence[Tensor | None]] = []
    alive = [index for index, value in enumerate(values) if value.requires_grad]
    for index, value in enumerate(values):
        if value.requires_grad:
            keep = index != alive[-1]
            rows.append(torch.autograd.grad(value.sum(), sources, retain_graph=keep, allow_unused=True))
        else:
            rows.append([None] * len(sources))
    gradients = {}
    for column, (name, activation) in enumerate(activations.items()):
        found = [row[column] for row in rows]
        gradients[name] = torch.stack(
            [torch.zeros(activation.shape) if one is None else _delivered(one) for one in found]
        )
    return torch.stack([_delivered(value) for value in values]), gradients


def _value(target: TargetFunction, outputs: Any) -> Tensor:  # noqa: ANN401
    value = target(outputs)
    if value.ndim != 1:
        raise IncompatibleMethodError(
            f"Target {getattr(target, 'name', target)!r} gave shape {tuple(value.shape)}; "
            "it must give one scalar per image, (n,)."
        )
    return value


def _delivered(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _detached(outputs: Any) -> Any:  # noqa: ANN401
    """The same structure without a graph, so that keeping it does not keep the pass in memory."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    if isinstance(outputs, Mapping):  # every ModelOutput of transformers is one
        items = {key: _detached(value) for key, value in outputs.items()}
        return type(outputs)(**items) if type(outputs) is not dict else items
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*map(_detached, outputs))
    if isinstance(outputs, tuple | list):
        return type(outputs)(map(_detached, outputs))
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        values = {
            item.name: _detached(getattr(outputs, item.name)) for item in dataclasses.fields(outputs) if item.init
        }
        return dataclasses.replace(outputs, **values)
    return outputs


def _modules(module: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    if not layers:
        raise IncompatibleMethodError("No layer was named; give the dotted name of at least one layer.")
    found = {}
    for name in layers:
        try:
            found[name] = module.get_submodule(name)
        except AttributeError:
            known = [known for known, _ in module.named_modules() if known]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[-3:]
            raise IncompatibleMethodError(
                f"{type(module).__name__} has no layer {name!r}; near names: {', '.join(near)}."
            ) from None
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the time of a ``with`` block.

    Flags are set one by one rather than by ``eval()``, because parts of a model may be in different modes and some
    modules do more than set a flag there.
    """
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
