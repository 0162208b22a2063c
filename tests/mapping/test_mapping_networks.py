"""The batched networks equal separate ones of torch's layers with the same weights."""

import math

import pytest
import torch
from torch import nn

from aupair.mapping.networks import MappingNetworks, _BatchedLinear, dropout

AFFWILD2, FEATURES, WIDTH, BATCH, SEEDS = 12, 7, 5, 9, 3


def make(outputs: int = 1) -> MappingNetworks:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    center = torch.randn(AFFWILD2, FEATURES, generator=generator)
    scale = torch.rand(AFFWILD2, FEATURES, generator=generator) + 0.5
    return MappingNetworks(center, scale, WIDTH, 0.5, outputs, seeds=SEEDS)


def separate(networks: MappingNetworks, seed: int, au: int) -> nn.Sequential:
    """Return a network of torch's layers with the weights of one of the batched ones."""
    k = seed * AFFWILD2 + au
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


def inputs(networks: MappingNetworks, au: int, x: torch.Tensor) -> torch.Tensor:
    """Return features (A, B, F) as the networks of an AU see them, (B, F)."""
    return (x[au] - networks.center[au]) / networks.scale[au]


def test_equal_to_separate_networks_in_value_and_gradient() -> None:
    networks, x = make().eval(), features()
    out = networks(x)
    assert out.shape == (SEEDS, AFFWILD2, BATCH)
    out.square().sum().backward()
    for seed in range(SEEDS):
        for au in range(AFFWILD2):
            own = separate(networks, seed, au).eval()
            expected = own(inputs(networks, au, x))[:, 0]
            torch.testing.assert_close(out[seed, au], expected)
            expected.square().sum().backward()
            first = own[0]
            assert isinstance(first, nn.Linear)
            layer = networks.layers[0]
            assert isinstance(layer, _BatchedLinear)
            assert layer.weight.grad is not None
            torch.testing.assert_close(layer.weight.grad[seed * AFFWILD2 + au].T, first.weight.grad)


@torch.no_grad()
def test_with_classes_the_loss_and_the_expected_level_equal_a_loop() -> None:
    networks, x, y = make(outputs=6).eval(), features(), torch.randint(0, 6, (AFFWILD2, BATCH))
    out, loss = networks(x), networks.loss(x, y.float())
    assert out.shape == loss.shape == (SEEDS, AFFWILD2, BATCH)
    for seed in range(SEEDS):
        for au in range(AFFWILD2):
            scores = separate(networks, seed, au).eval()(inputs(networks, au, x))
            probability = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            torch.testing.assert_close(out[seed, au], sum(k * probability[:, k] for k in range(6)))
            torch.testing.assert_close(loss[seed, au], -probability[range(BATCH), y[au]].log())


@torch.no_grad()
def test_each_seed_may_have_features_and_levels_of_its_own() -> None:
    networks = make().eval()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(SEEDS, AFFWILD2, BATCH, FEATURES, generator=generator)
    y = torch.randn(SEEDS, AFFWILD2, BATCH, generator=generator)
    out, loss = networks(x), networks.loss(x, y)
    for seed in range(SEEDS):
        torch.testing.assert_close(out[seed], networks(x[seed])[seed])
        torch.testing.assert_close(loss[seed], networks.loss(x[seed], y[seed])[seed])


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
