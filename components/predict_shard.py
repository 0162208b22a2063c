"""predict-shard: fetch and predict the videos of one shard."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def predict_shard(shard: int, abstain: float, plan: dsl.Input[dsl.Artifact], tables: dsl.Output[dsl.Dataset]) -> None:
    """Fetch the videos of one shard and recognise AUs in them: a row for every frame, a status for every video."""
    from aupair.kubeflow.shards import predict_shard_videos

    predict_shard_videos(shard, abstain, plan, tables)
