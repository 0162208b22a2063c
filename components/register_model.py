"""register-model: register the networks as one version in the MLflow registry."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_model(
    aus: str,
    seed: int,
    target: str,
    trials: list[int],
    ensemble: str,
    check_data: dict,
    preprocess_faces: dict,
    sample_pairs: dict,
    embed_faces: dict,
    train_pseudo_intensity: dict,
    train_uncertainty: dict,
    extract_features: dict,
    train_mapping: dict,
    evaluate: dict,
    register_model: dict,
    info: dsl.Input[dsl.Artifact],
    embeddings: dsl.Input[dsl.Dataset],
    f: dsl.Input[list[dsl.Model]],
    h: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    mapping: dsl.Input[dsl.Model],
    selection: dsl.Input[dsl.Artifact],
    summary: dsl.Input[dsl.Metrics],
    metrics: dsl.Input[dsl.Artifact],
    draws: dsl.Input[dsl.Artifact],
    table: dsl.Input[dsl.Markdown],
    plots: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    bundle: dsl.Output[dsl.Model],
    registered: dsl.Output[dsl.Artifact],
) -> None:
    """Log the flow to MLflow and register its networks as a version of the model, unless they are registered already."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("register-model", arguments)
