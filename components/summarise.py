"""summarise: the exit handler. Whatever happened, it says so: status, score table, link to MLflow."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def summarise(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Write what became of the run, for people."""
    from aupair.kubeflow.summary import summarise

    summarise(status.state, status.error_message, summary)
