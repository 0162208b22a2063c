"""embed-faces: compute the features of a frozen trunk once for each face."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def embed_faces(
    seed: int,
    embed_faces: dict,
    train_pseudo_intensity: dict,
    labels: dsl.Input[dsl.Dataset],
    faces: dsl.Input[dsl.Dataset],
    embeddings: dsl.Output[dsl.Dataset],
) -> None:
    """Compute the features of every face once, if f's trunk is frozen (`network.frozen: true`); otherwise do nothing."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("embed-faces", arguments)
