"""The training pipeline, from videos to a registered model; f is trained once for each trial.

Command: aupair pipeline compile -o train.yaml
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from aupair.params import Params
from components.check_data import check_data as check_data_step
from components.embed_faces import embed_faces as embed_faces_step
from components.evaluate import evaluate as evaluate_step
from components.extract_features import extract_features as extract_features_step
from components.fetch_data import fetch_data
from components.preprocess_faces import preprocess_faces as preprocess_faces_step
from components.register_model import register_model as register_model_step
from components.sample_pairs import sample_pairs as sample_pairs_step
from components.summarise import summarise
from components.train_mapping import train_mapping as train_mapping_step
from components.train_pseudo_intensity import train_pseudo_intensity as train_pseudo_intensity_step
from components.train_uncertainty import train_uncertainty as train_uncertainty_step

Configure = Callable[[Any], Any]


def train_pipeline(params: Params, configure: Configure, parallelism: int | None, config: dsl.PipelineConfig) -> Any:
    """Return the pipeline function; `params` are its defaults, `configure` applies the cluster's options to a task."""
    default = params.model_dump(mode="json", exclude_none=True)  # an input of KFP cannot hold null

    @dsl.pipeline(name="aupair-train", description="From videos to a registered model.", pipeline_config=config)
    def train(
        source: str,
        revision: str = "",
        remote: str = "",
        aus: str = default["aus"],
        seed: int = default["seed"],
        target: str = default["target"],
        trials: list[int] = default["trials"],
        ensemble: str = default["ensemble"],
        check_data: dict = default["check_data"],
        preprocess_faces: dict = default["preprocess_faces"],
        sample_pairs: dict = default["sample_pairs"],
        embed_faces: dict = default["embed_faces"],
        train_pseudo_intensity: dict = default["train_pseudo_intensity"],
        train_uncertainty: dict = default["train_uncertainty"],
        extract_features: dict = default["extract_features"],
        train_mapping: dict = default["train_mapping"],
        evaluate: dict = default["evaluate"],
        register_model: dict = default["register_model"],
    ) -> None:
        exit_task = summarise(last_task="register-model", run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        with dsl.ExitHandler(configure(exit_task)):
            data = configure(fetch_data(source=source, revision=revision, remote=remote)).outputs["data"]
            checked = configure(check_data_step(aus=aus, target=target, check_data=check_data, data=data)).outputs
            labels = checked["labels"]
            faces = configure(
                preprocess_faces_step(preprocess_faces=preprocess_faces, data=data, labels=labels)
            ).outputs["faces"]
            pairs = configure(
                sample_pairs_step(seed=seed, sample_pairs=sample_pairs, labels=labels, faces=faces)
            ).outputs["pairs"]
            frames = {"labels": labels, "faces": faces}
            embeddings = configure(
                embed_faces_step(
                    seed=seed, embed_faces=embed_faces, train_pseudo_intensity=train_pseudo_intensity, **frames
                )
            ).outputs["embeddings"]
            with dsl.ParallelFor(trials, parallelism=parallelism) as trial:
                f = configure(
                    train_pseudo_intensity_step(
                        seed=seed,
                        trial=trial,
                        train_pseudo_intensity=train_pseudo_intensity,
                        pairs=pairs,
                        embeddings=embeddings,
                        **frames,
                    )
                ).outputs["f"]
            networks = {"trials": trials, "ensemble": ensemble}
            h = configure(
                train_uncertainty_step(
                    seed=seed,
                    train_uncertainty=train_uncertainty,
                    pairs=pairs,
                    embeddings=embeddings,
                    f=dsl.Collected(f),
                    **networks,
                    **frames,
                )
            ).outputs["h"]
            features = configure(
                extract_features_step(extract_features=extract_features, f=dsl.Collected(f), h=h, **networks, **frames)
            ).outputs["features"]
            mapping = configure(
                train_mapping_step(seed=seed, target=target, train_mapping=train_mapping, features=features, **frames)
            ).outputs["mapping"]
            trained = {"h": h, "features": features, "mapping": mapping}
            evaluated = configure(
                evaluate_step(
                    target=target,
                    evaluate=evaluate,
                    data=data,
                    info=checked["info"],
                    pairs=pairs,
                    f=dsl.Collected(f),
                    **networks,
                    **frames,
                    **trained,
                )
            ).outputs
            configure(
                register_model_step(
                    aus=aus,
                    seed=seed,
                    target=target,
                    check_data=check_data,
                    preprocess_faces=preprocess_faces,
                    sample_pairs=sample_pairs,
                    embed_faces=embed_faces,
                    train_pseudo_intensity=train_pseudo_intensity,
                    train_uncertainty=train_uncertainty,
                    extract_features=extract_features,
                    train_mapping=train_mapping,
                    evaluate=evaluate,
                    register_model=register_model,
                    info=checked["info"],
                    embeddings=embeddings,
                    selection=evaluated["selection"],
                    summary=evaluated["summary"],
                    metrics=evaluated["metrics"],
                    draws=evaluated["draws"],
                    table=evaluated["table"],
                    plots=evaluated["plots"],
                    report=evaluated["report"],
                    f=dsl.Collected(f),
                    **networks,
                    **trained,
                )
            )

    return train
