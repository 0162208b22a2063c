"""extract-features: compute the features of every frame."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    trials: list[int],
    ensemble: str,
    extract_features: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    f: dsl.Input[list[dsl.Model]],
    h: dsl.Input[dsl.Model],
    features: dsl.Output[dsl.Dataset],
) -> None:
    """Fit the smoothers and the statistics that scale y_hat, and compute the features of every frame on each route."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("extract-features", arguments)
