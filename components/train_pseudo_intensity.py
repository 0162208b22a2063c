"""train-pseudo-intensity: train f, once for each trial."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_pseudo_intensity(
    seed: int,
    trial: int,
    train_pseudo_intensity: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    pairs: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Dataset],
    f: dsl.Output[dsl.Model],
    scores: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Train f by ranking, and compute y_hat of every frame with an f that was not trained on its person."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("train-pseudo-intensity", arguments)
