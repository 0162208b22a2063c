"""train-mapping: fit the mappings of each AU."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_mapping(
    seed: int,
    target: str,
    train_mapping: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    mapping: dsl.Output[dsl.Model],
    scores: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Fit a mapping from features to levels on each route."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("train-mapping", arguments)
