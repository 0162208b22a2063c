"""summarise: the exit handler, which writes the run's result, score table and links, also after a failure."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def summarise(
    last_task: str, run_id: str, status: dsl.PipelineTaskFinalStatus, result: dsl.Output[dsl.Markdown]
) -> None:
    """Write a summary of the run, which has succeeded if its last task is recorded as complete."""
    from aupair.kubeflow.summary import write_run_summary

    write_run_summary(status.state, last_task, run_id, result)
