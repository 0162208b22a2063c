"""The batched networks equal 24 separate ones of torch's layers with the same weights."""

import math

import pytest
import torch
from torch import nn

from aupair.mapping.networks import MappingNetworks, _BatchedLinear, dropout

AFFWILD2, FEATURES, WIDTH, BATCH = 12, 7, 5, 9


PLAIN = torch.tensor([1.0, 0, 1, 1, 0, 0, 1])


def make(outputs: int = 1) -> MappingNetworks:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    center = torch.randn(AFFWILD2, FEATURES, generator=generator)
    scale = torch.rand(AFFWILD2, FEATURES, generator=generator) + 0.5
    return MappingNetworks(PLAIN.bool(), center, scale, WIDTH, 0.5, outputs)


def separate(networks: MappingNetworks, variant: int, au: int) -> nn.Sequential:
    """Return a network of torch's layers with the weights of one of the 24."""
    k = variant * AFFWILD2 + au
    parts: list[nn.Module] = []
    for layer in networks.layers:
        assert isinstance(layer, _BatchedLinear)
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
        with torch.no_grad():
            linear.weight.copy_(layer.weight[k].T)
            linear.bias.copy_(layer.bias[k, 0])
        parts += [linear, nn.ReLU(), nn.Dropout(networks.dropout)]
    return nn.Sequential(*parts[:-2])


def features() -> torch.Tensor:
    return torch.randn(AFFWILD2, BATCH, FEATURES, generator=torch.Generator().manual_seed(1))


def inputs(networks: MappingNetworks, variant: int, au: int) -> torch.Tensor:
    """Return the features as one of the 24 networks sees them."""
    standard = (features()[au] - networks.center[au]) / networks.scale[au]
    return standard * PLAIN if variant else standard


def test_equal_to_24_separate_networks_in_value_and_gradient() -> None:
    networks, x = make().eval(), features()
    out = networks(x)
    assert out.shape == (2, AFFWILD2, BATCH)
    out.square().sum().backward()
    for variant in range(2):
        for au in range(AFFWILD2):
            own = separate(networks, variant, au).eval()
            expected = own(inputs(networks, variant, au))[:, 0]
            torch.testing.assert_close(out[variant, au], expected)
            expected.square().sum().backward()
            first = own[0]
            assert isinstance(first, nn.Linear)
            layer = networks.layers[0]
            assert isinstance(layer, _BatchedLinear)
            assert layer.weight.grad is not None
            torch.testing.assert_close(layer.weight.grad[variant * AFFWILD2 + au].T, first.weight.grad)


@torch.no_grad()
def test_with_classes_the_loss_and_the_expected_level_equal_a_loop() -> None:
    networks, x, y = make(outputs=6).eval(), features(), torch.randint(0, 6, (AFFWILD2, BATCH))
    out, loss = networks(x), networks.loss(x, y.float())
    assert out.shape == loss.shape == (2, AFFWILD2, BATCH)
    for variant in range(2):
        for au in range(AFFWILD2):
            scores = separate(networks, variant, au).eval()(inputs(networks, variant, au))
            probability = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            torch.testing.assert_close(out[variant, au], sum(k * probability[:, k] for k in range(6)))
            torch.testing.assert_close(loss[variant, au], -probability[range(BATCH), y[au]].log())


def test_dropout_acts_in_training_alone() -> None:
    networks, x = make(), features()
    torch.manual_seed(0)
    assert not torch.equal(networks.train()(x), networks(x))
    networks.eval()
    assert torch.equal(networks(x), networks(x))


def test_initialised_as_torchs_linear() -> None:
    torch.manual_seed(0)
    layer, reference = _BatchedLinear(50, 40, 30), nn.Linear(40, 30)
    bound = 1 / math.sqrt(40)
    for ours, theirs in ((layer.weight, reference.weight), (layer.bias, reference.bias)):
        assert ours.detach().abs().max() <= bound
        assert float(ours.detach().std()) == pytest.approx(float(theirs.detach().std()), rel=0.25)
        assert float(ours.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_dropout_keeps_a_share_and_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.full((200, 500), 3.0, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    assert sorted(out.detach().unique().tolist()) == pytest.approx([0, 3 / 0.7])
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, out.detach() / 3)
    assert dropout(x, 0.0) is x
