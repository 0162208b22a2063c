"""gather-predictions: merge the tables of all shards into one folder with one summary."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gather_predictions(
    tables: dsl.Input[list[dsl.Dataset]],
    predictions: dsl.Output[dsl.Dataset],
    overview: dsl.Output[dsl.Markdown],
) -> None:
    """Merge the tables of all shards; fail only if no video at all could be read."""
    from aupair.console import ConsoleLog
    from aupair.kubeflow.run_record import record_task
    from aupair.kubeflow.shards import merge_shard_tables

    with record_task("gather-predictions", ConsoleLog()):
        merge_shard_tables(tables, predictions, overview)
