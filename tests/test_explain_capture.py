"""The one-pass engine: exact gradients, nothing done below the cut, nothing left behind."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import ImageClassifierOutput

from explain.capture import capture
from models.errors import IncompatibleMethodError


class Toy(nn.Module):
    """Channels x and 2x, mean over the cells, logits (a - b, 3b): every number can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Identity()
        self.map = nn.Conv2d(1, 2, 1, bias=False)
        self.idle = nn.Linear(1, 1)
        self.head = nn.Linear(2, 2, bias=False)
        self.runs = 0
        with torch.no_grad():
            self.map.weight.copy_(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 3.0]]))

    def forward(self, x):
        self.runs += 1
        return ImageClassifierOutput(logits=self.head(self.map(self.stem(x)).mean((2, 3))))


def first(outputs):
    return outputs.logits[:, 0]


def second(outputs):
    return outputs.logits[:, 1]


def picture():
    return torch.arange(8.0).reshape(2, 1, 2, 2)


def test_activation_gradient_and_value_are_the_hand_computed_ones():
    toy, x = Toy().eval(), picture()
    taken = capture(toy, lambda: toy(x), ["map"], [first, second])
    torch.testing.assert_close(taken.activations["map"], torch.cat([x, 2 * x], dim=1))
    gradient = taken.gradients["map"]
    assert gradient.shape == (2, 2, 2, 2, 2)  # targets, images, channels, rows, columns
    for target, (a, b) in enumerate([(0.25, -0.25), (0.0, 0.75)]):
        assert torch.equal(gradient[target, :, 0], torch.full((2, 2, 2), a))
        assert torch.equal(gradient[target, :, 1], torch.full((2, 2, 2), b))
    torch.testing.assert_close(taken.values, torch.tensor([[-1.5, -5.5], [9.0, 33.0]]))
    torch.testing.assert_close(taken.outputs.logits, taken.values.T)
    assert not taken.outputs.logits.requires_grad
    assert isinstance(taken.outputs, ImageClassifierOutput)


def test_two_targets_cost_one_forward_pass_without_a_graph_below_the_cut():
    toy, x = Toy(), picture()
    below = []
    toy.stem.register_forward_hook(lambda _m, _i, out: below.append(out.requires_grad))
    toy.map.register_forward_pre_hook(lambda _m, inputs: below.append(inputs[0].requires_grad))
    capture(toy, lambda: toy(x), ["map"], [first, second])
    assert toy.runs == 1
    assert below == [False, False]


def test_hooks_that_were_there_before_get_the_output_with_its_gradient():
    # The library collects hidden states by such hooks, and LLaVA projects one of them.
    toy, x, collected = Toy(), picture(), []
    toy.map.register_forward_hook(lambda _m, _i, out: collected.append(out))
    taken = capture(toy, lambda: [toy(x), collected.pop().mean((2, 3))][1], ["map"], [lambda out: out[:, 1]])
    assert torch.equal(taken.gradients["map"][0, :, 1], torch.full((2, 2, 2), 0.25))


def test_the_cut_lies_at_the_layer_that_runs_first_whatever_the_order_given():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = torch.randn(2, 1, 6, 6)
    taken = capture(net, lambda: net(x), ["2", "0"], [lambda out: out[:, 1]])
    early = net[0](x).detach().requires_grad_()
    late = net[2](net[1](early))
    expected = torch.autograd.grad(net[4](net[3](late))[:, 1].sum(), [late, early])
    torch.testing.assert_close(taken.activations["2"], late.detach())
    torch.testing.assert_close(taken.gradients["2"][0], expected[0])
    torch.testing.assert_close(taken.gradients["0"][0], expected[1])


def test_parallel_branches_are_both_differentiated():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return 2 * self.left(x) + 5 * self.right(x)

    fork = Fork()
    taken = capture(fork, lambda: fork(torch.ones(3, 1)), ["left", "right"], [lambda out: out[:, 0]])
    assert taken.gradients["left"].unique().tolist() == [2]
    assert taken.gradients["right"].unique().tolist() == [5]


def test_an_in_place_operation_above_the_layer_leaves_the_activation_alone():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True), nn.Linear(2, 2), nn.ReLU(inplace=True))
    with torch.no_grad():
        net[0].weight.copy_(-torch.eye(2))
    x = torch.tensor([[1.0, -2.0]])
    taken = capture(net, lambda: net(x), ["0", "2"], [lambda out: out.sum(1)])
    assert torch.equal(taken.activations["0"], -x)
    assert taken.gradients["0"][0, 0, 0] == 0  # closed by the ReLU
    torch.testing.assert_close(taken.activations["2"], net[2](torch.tensor([[0.0, 2.0]])).detach())


Pair = namedtuple("Pair", "hidden extra")


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t, "kept"), lambda t: [t, "kept"], lambda t: Pair(t, "kept")])
def test_tensor_tuple_list_and_named_tuple_outputs_are_accepted(wrap):
    class Block(nn.Module):
        def forward(self, x):
            return wrap(3 * x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            out = self.block(x)
            if not isinstance(out, Tensor):
                assert out[1] == "kept"
                assert type(out) is type(wrap(x))
                out = out[0]
            return out**2

    net, x = Net(), torch.tensor([[1.0], [2.0]])
    taken = capture(net, lambda: net(x), ["block"], [lambda out: out[:, 0]])
    assert taken.activations["block"].tolist() == [[3], [6]]  # both images of the batch
    assert taken.gradients["block"].tolist() == [[[6], [12]]]


def test_a_module_that_runs_twice_is_taken_at_its_first_run():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(1, 1, bias=False)

        def forward(self, x):
            return self.scale(self.scale(x))

    net = Twice()
    with torch.no_grad():
        net.scale.weight.fill_(2)
    taken = capture(net, lambda: net(torch.tensor([[1.0]])), ["scale"], [lambda out: out[:, 0]])
    assert taken.activations["scale"].item() == 2
    assert taken.gradients["scale"].item() == 2


class Checkpointed(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        x = self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x)

    def block(self, x):
        return torch.tanh(self.two(torch.tanh(self.one(x))))


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain, again, x = Checkpointed(), Checkpointed(reentrant=False), torch.randn(3, 4)
    again.load_state_dict(plain.state_dict())
    targets = [lambda out: out[:, 0], lambda out: out[:, 1]]
    for layers in (["one"], ["stem"], ["one", "two"]):
        expected = capture(plain, lambda: plain(x), layers, targets)
        taken = capture(again, lambda: again(x), layers, targets)
        for layer in layers:
            torch.testing.assert_close(taken.gradients[layer], expected.gradients[layer])
            assert taken.gradients[layer].abs().max() > 0


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_reentrant_checkpointing_is_refused_with_the_reason():
    net = Checkpointed(reentrant=True)
    with pytest.raises(IncompatibleMethodError, match=r"switches gradients off around layer 'one'.*checkpointing"):
        capture(net, lambda: net(torch.ones(1, 4)), ["one"], [lambda out: out[:, 0]])


def state_of(module):
    return (
        [part.training for part in module.modules()],
        [(p.requires_grad, p.grad) for p in module.parameters()],
        [len(part._forward_hooks) for part in module.modules()],
    )


def prepared_toy():
    toy = Toy().train()
    toy.stem.eval()
    toy.head.weight.requires_grad_(False)
    toy.map.weight.grad = torch.full_like(toy.map.weight, 7)
    return toy


def test_modes_gradients_and_hooks_are_restored_after_success():
    toy = prepared_toy()
    before, modes = state_of(toy), []
    toy_forward = lambda: modes.append([part.training for part in toy.modules()]) or toy(picture())  # noqa: E731
    capture(toy, toy_forward, ["map"], [first])
    assert modes == [[False] * 5]
    after = state_of(toy)
    assert after == before
    assert after[1][0][1] is toy.map.weight.grad
    assert toy.map.weight.grad.unique().tolist() == [7]


def broken(_outputs):
    raise ArithmeticError("target broke")


@pytest.mark.parametrize(
    ("layers", "target", "error"),
    [(["map"], broken, ArithmeticError), (["idle"], first, IncompatibleMethodError), (["map"], None, KeyError)],
)
def test_modes_gradients_and_hooks_are_restored_after_failure(layers, target, error):
    toy = prepared_toy()
    before = state_of(toy)

    def forward():
        if target is None:
            toy(picture())
            raise KeyError("forward broke")
        return toy(picture())

    with pytest.raises(error):
        capture(toy, forward, layers, [target or first])
    assert state_of(toy) == before


@pytest.mark.parametrize("weights", ["plain", "frozen", "bfloat16", "with a quantised parameter", "asking for input"])
def test_every_kind_of_weights_gives_the_same_float32_gradient(weights):
    toy, x = Toy(), picture()
    if weights == "frozen":
        toy.requires_grad_(False)
    if weights == "bfloat16":
        toy, x = toy.bfloat16(), x.bfloat16()
    if weights == "with a quantised parameter":
        toy.codes = nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    if weights == "asking for input":
        x.requires_grad_()
    with torch.no_grad():
        taken = capture(toy, lambda: toy(x), ["map"], [first])
    assert taken.activations["map"].dtype == taken.gradients["map"].dtype == taken.values.dtype == torch.float32
    assert taken.activations["map"].is_contiguous()
    assert taken.gradients["map"].is_contiguous()
    assert taken.gradients["map"].unique().tolist() == [-0.25, 0.25]
    assert x.grad is None


def test_without_targets_only_activations_are_taken():
    toy = Toy()
    taken = capture(toy, lambda: toy(picture()), ["map"])
    assert taken.activations["map"].shape == (2, 2, 2, 2)
    assert taken.gradients["map"].shape == (0, 2, 2, 2, 2)


def test_a_layer_that_the_target_does_not_use_has_zero_gradient():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return SimpleNamespace(logits=self.used(x), spare=self.unused(x), constant=torch.ones(len(x)))

    net = Split()
    taken = capture(net, lambda: net(torch.ones(2, 1)), ["used", "unused"], [first, lambda out: out.constant])
    assert taken.gradients["unused"].abs().sum() == 0
    assert taken.gradients["used"][0].abs().sum() > 0
    assert taken.gradients["used"][1].abs().sum() == 0


def test_inference_mode_is_refused():
    toy = Toy()
    with torch.inference_mode(), pytest.raises(IncompatibleMethodError, match="leave it"):
        capture(toy, lambda: toy(picture()), ["map"], [first])
    with torch.inference_mode():
        locked = Toy()
    with pytest.raises(IncompatibleMethodError, match="load the model outside"):
        capture(locked, lambda: locked(picture()), ["map"], [first])


def test_a_model_that_switches_gradients_off_is_named():
    toy = Toy()

    @torch.no_grad()
    def forward():
        return toy(picture())

    with pytest.raises(IncompatibleMethodError, match="switches gradients off around layer 'map'"):
        capture(toy, forward, ["map"], [first])
    assert capture(toy, forward, ["map"]).activations["map"].shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("layers", "target", "words"),
    [
        (["mapp"], first, "no layer 'mapp'; near names: map"),
        ([], first, "No layer was named"),
        (["idle"], first, "'idle' did not run"),
        (["map"], lambda outputs: outputs.logits, r"gave shape \(2, 2\)"),
        (["map"], lambda outputs: outputs.logits.sum(), r"gave shape \(\)"),
    ],
)
def test_a_wrong_question_gets_one_clear_line(layers, target, words):
    toy = Toy()
    with pytest.raises(IncompatibleMethodError, match=words) as caught:
        capture(toy, lambda: toy(picture()), layers, [target])
    assert "\n" not in str(caught.value)


def test_a_layer_that_gives_no_floating_tensor_is_named():
    class Index(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    net = nn.Sequential(Index())
    with pytest.raises(IncompatibleMethodError, match=r"'0' gives torch.int64"):
        capture(net, lambda: net(torch.ones(1, 2)), ["0"])
