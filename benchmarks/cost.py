"""What does a frame cost for 12 AUs? Against 24 separate VGG16, an f and an h for each AU, as the authors have them."""

from pathlib import Path
from typing import Any

from harness import Row, main
from torchvision.models import VGG16_Weights

from aupair.aus import AUS
from aupair.evaluation.cost import cost_of
from aupair.params import load_params

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "params" / "affwild2.yaml"
GOAL = 12.0
SEPARATE = ("train_pseudo_intensity.network.sharing=per_au", "train_uncertainty.network.sharing=per_au")
FACTORS = ("train_uncertainty.kind=factors",)


def measure() -> list[Row]:
    """Count multiplications with an addition at the paper's settings."""
    ours, theirs, factors = (cost_of(load_params(PAPER, settings)) for settings in ((), SEPARATE, FACTORS))
    same, both, all_parts = check(ours), ("f", "h"), ("f", "h", "mapping")
    return [
        row("f and h", both, ours, theirs, same),
        row("the same, h being `kind: factors`", both, factors, theirs, same),
        row("f, h and the mapping, which both need", all_parts, ours, theirs, same),
    ]


def row(what: str, parts: tuple[str, ...], ours: dict[str, Any], theirs: dict[str, Any], same: str) -> Row:
    """Compare the costs of some parts."""
    texts, gmacs = [], []
    for found in (ours, theirs):
        gmac, size = (sum(found["parts"][name][key] for name in parts) for key in ("gmac_per_frame", "parameters"))
        gmacs.append(gmac)
        texts.append(f"{gmac:.2f} ({size / 1e6:,.0f} million parameters)")
    ratio = gmacs[1] / gmacs[0]
    return Row(
        question=f"GMAC a frame for {len(AUS)} AUs: {what}", ours=texts[0], reference=f"24 VGG16: {texts[1]}",
        ratio=ratio, goal=f"{GOAL:g} x", met=ratio >= GOAL, same=same,
    )  # fmt: skip


def check(found: dict[str, Any]) -> str:
    """Hold our count of one VGG16 against torchvision's own, which has 1000 outputs.

    Raises:
        AssertionError: they differ.
    """
    more, of_f, published = 1000 - len(AUS), found["parts"]["f"], VGG16_Weights.IMAGENET1K_V1.meta
    gmac = of_f["gmac_per_frame"] + more * 4096 / 1e9
    parameters = of_f["parameters"] + more * 4097
    assert parameters == published["num_params"], parameters
    assert round(gmac, 2) == round(published["_ops"], 2), gmac
    return f"counted layer by layer; VGG16 of 1000 outputs: {gmac:.2f} GMAC, {parameters:,} parameters, as torchvision says"


if __name__ == "__main__":
    main(measure)
