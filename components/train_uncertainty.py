"""train-uncertainty: train h on the networks of f of all trials."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_uncertainty(
    seed: int,
    trials: list[int],
    ensemble: str,
    train_uncertainty: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    pairs: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Dataset],
    f: dsl.Input[list[dsl.Model]],
    h: dsl.Output[dsl.Model],
    scores: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Train h on the y_hat of f and, by default, the features of f's trunks, and compute sigma of every frame."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("train-uncertainty", arguments)
