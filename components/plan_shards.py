"""plan-shards: which videos there are, which version of the model judges them, and how they are dealt out."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_shards(source: str, model: str, shards: int, plan: dsl.Output[dsl.Artifact]) -> list:
    """List the videos of a folder or a prefix, pin the model's version, and give the numbers of the shards."""
    from aupair.kubeflow.shards import plan_shards

    return plan_shards(source, model, shards, plan)
