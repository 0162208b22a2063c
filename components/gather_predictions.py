"""gather-predictions: the shards' tables in one folder, with one summary."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gather_predictions(
    tables: dsl.Input[list[dsl.Dataset]],
    predictions: dsl.Output[dsl.Dataset],
    overview: dsl.Output[dsl.Markdown],
) -> None:
    """Put the tables of all shards together; fail only where no video at all could be read."""
    from aupair.kubeflow.shards import gather_predictions

    gather_predictions(tables, predictions, overview)
