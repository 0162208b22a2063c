"""summarise: the exit handler, which writes status, score table and a link to MLflow, also after a failure."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def summarise(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Write a summary of the run for people."""
    from aupair.kubeflow.summary import write_run_summary

    write_run_summary(status.state, status.error_message, summary)
