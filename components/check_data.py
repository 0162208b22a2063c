"""check-data: write the table of labels, the hash of the data, and Data Docs."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check_data(
    aus: str,
    target: str,
    check_data: dict,
    data: dsl.Input[dsl.Dataset],
    labels: dsl.Output[dsl.Dataset],
    info: dsl.Output[dsl.Artifact],
    data_docs: dsl.Output[dsl.Artifact],
) -> None:
    """Read annotations and splits, check them, and hash the data."""
    arguments = dict(locals())
    from aupair.kubeflow.step import run_component

    run_component("check-data", arguments)
