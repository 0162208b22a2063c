"""train-uncertainty: train h, once for each trial."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_uncertainty(
    seed: int,
    trial: int,
    train_uncertainty: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    pairs: dsl.Input[dsl.Dataset],
    f: dsl.Input[dsl.Model],
    h: dsl.Output[dsl.Model],
    scores: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Train h on the y_hat of f and, by default, the features of f's trunk, and compute sigma of every frame."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("train-uncertainty", arguments)
