"""The prediction pipeline: a folder or an S3 prefix of videos -> shards, side by side -> one folder of tables.

aupair pipeline compile predict -o predict.yaml
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from aupair.params import Params
from components.gather_predictions import gather_predictions
from components.plan_shards import plan_shards
from components.predict_shard import predict_shard
from components.summarise import summarise

Place = Callable[[Any], Any]


def pipeline(params: Params, place: Place, parallelism: int | None, config: dsl.PipelineConfig) -> Any:
    """Give the pipeline function; of `params` it takes the registered model's name."""
    champion = f"models:/{params.register_model.name}@champion"

    @dsl.pipeline(name="aupair-predict", description="From videos to Action Units.", pipeline_config=config)
    def predict(source: str, model: str = champion, shards: int = 4, abstain: float = 0.0) -> None:
        with dsl.ExitHandler(place(summarise())):
            planned = place(plan_shards(source=source, model=model, shards=shards)).outputs
            with dsl.ParallelFor(planned["Output"], parallelism=parallelism) as shard:
                tables = place(predict_shard(shard=shard, abstain=abstain, plan=planned["plan"])).outputs["tables"]
            place(gather_predictions(tables=dsl.Collected(tables)))

    return predict
