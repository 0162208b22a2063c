"""plan-shards: list the videos, pin the version of the model, and assign the videos to shards."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_shards(source: str, model: str, shards: int, plan: dsl.Output[dsl.Artifact]) -> list[int]:
    """List the videos of a folder or a prefix, pin the model's version, and return the numbers of the shards."""
    from aupair.kubeflow.shards import write_shard_plan

    return write_shard_plan(source, model, shards, plan)
