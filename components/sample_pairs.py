"""sample-pairs: draw the pairs, the groups of frames and the folds of people."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sample_pairs(
    seed: int,
    sample_pairs: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    pairs: dsl.Output[dsl.Dataset],
) -> None:
    """Draw fixed pairs to evaluate networks on, pairs or groups to train on, and the folds of people."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("sample-pairs", arguments)
