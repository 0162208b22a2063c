"""preprocess-faces: write a file of aligned faces for each video."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_faces(
    preprocess_faces: dict,
    data: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Output[dsl.Dataset],
) -> None:
    """Turn each video into a file of aligned faces."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("preprocess-faces", arguments)
