"""The prediction pipeline: predict the videos of a folder or an S3 prefix in parallel shards, then merge the tables.

Command: aupair pipeline compile predict -o predict.yaml
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from aupair.params import Params
from components.gather_predictions import gather_predictions
from components.plan_shards import plan_shards
from components.predict_shard import predict_shard
from components.summarise import summarise

Configure = Callable[[Any], Any]


def predict_pipeline(params: Params, configure: Configure, parallelism: int | None, config: dsl.PipelineConfig) -> Any:
    """Return the pipeline function.

    Args:
        params: only the name of the registered model is used.
        configure: sets the resources of a task.
        parallelism: number of shards that run at the same time; None: no limit.
    """
    champion = f"models:/{params.register_model.name}@champion"

    @dsl.pipeline(name="aupair-predict", description="From videos to Action Units.", pipeline_config=config)
    def predict(source: str, model: str = champion, shards: int = 4, abstain: float = 0.0) -> None:
        exit_task = summarise(last_task="gather-predictions", run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        with dsl.ExitHandler(configure(exit_task)):
            planned = configure(plan_shards(source=source, model=model, shards=shards)).outputs
            with dsl.ParallelFor(planned["Output"], parallelism=parallelism) as shard:
                tables = configure(predict_shard(shard=shard, abstain=abstain, plan=planned["plan"])).outputs["tables"]
            configure(gather_predictions(tables=dsl.Collected(tables)))

    return predict
