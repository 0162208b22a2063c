"""evaluate: choose on select and evaluate on validation."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    target: str,
    trials: list[int],
    ensemble: str,
    evaluate: dict,
    data: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    info: dsl.Input[dsl.Artifact],
    faces: dsl.Input[dsl.Dataset],
    pairs: dsl.Input[dsl.Dataset],
    f: dsl.Input[list[dsl.Model]],
    h: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    mapping: dsl.Input[dsl.Model],
    selection: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Metrics],
    metrics: dsl.Output[dsl.Artifact],
    draws: dsl.Output[dsl.Artifact],
    table: dsl.Output[dsl.Markdown],
    plots: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Choose thresholds and mappings on `select` and calibrate the confidence there; score all on `validation`."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("evaluate", arguments)
