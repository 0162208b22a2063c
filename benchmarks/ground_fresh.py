"""Other people for the proving ground: each training is scored again on people of validation that nobody has seen.

A corpus of the proving ground has few people in validation. Synthetic people are free: the corpus is written again with its
people of fit and select, and with others, several times as many, in validation. The networks, the smoothers and the mappings of a
training score their frames; thresholds and mappings are chosen on select, as before.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np

from aupair import store
from aupair.data.frames import Frames, load_frames
from aupair.data.quality import load_quality
from aupair.evaluation.conditions import load_conditions
from aupair.evaluation.evaluate import evaluate_flow
from aupair.evaluation.selection import Outputs, read_outputs
from aupair.mapping.extractor import Extractor, VideoInput
from aupair.mapping.features import Features
from aupair.mapping.model import Mapping
from aupair.params import Params
from aupair.ranking.ensemble import list_members
from aupair.ranking.images import FaceImages
from aupair.ranking.samples import draw_samples
from aupair.ranking.scores import FaceScores, Scorer
from aupair.stage import ARTIFACTS
from aupair.synth.corpus import SynthParams, split_of

BATCH = 32
"""faces that are scored at once"""
SPLIT = "validation"


def fresh_subjects(synth: SynthParams, times: int) -> list[int]:
    """Return the numbers of the subjects: those of fit and select, and `times` as many others of validation."""
    numbers = range(synth.subjects)
    others = (number for number in count(synth.subjects) if split_of(number) == SPLIT)
    validation = sum(split_of(number) == SPLIT for number in numbers)
    return [k for k in numbers if split_of(k) != SPLIT] + list(islice(others, times * validation))


def score_fresh(training: Path, fresh: Path, target: Path, params: Params) -> None:
    """Score a training on the fresh people, and write metrics.json and draws.json into a folder, where evaluate has them.

    Args:
        training: the folder of the training.
        fresh: that of the corpus with other people.
        target: the folder for the results.
        params: those of the training.
    """
    frames = load_frames(fresh / ARTIFACTS["labels"], fresh / ARTIFACTS["faces"])
    outputs = _outputs(training, fresh / ARTIFACTS["faces"], frames, params)
    conditions = load_conditions(fresh / ARTIFACTS["data"] / "conditions.csv", frames)
    samples = draw_samples(frames, params.sample_pairs, params.seed)
    evaluation = evaluate_flow(frames, outputs, samples.pairs, conditions, params.evaluate, target=params.target)
    for artifact, tree in (("metrics", evaluation.metrics), ("draws", evaluation.draws)):
        (target / ARTIFACTS[artifact]).parent.mkdir(parents=True, exist_ok=True)
        store.write_json(target / ARTIFACTS[artifact], tree)


def _outputs(training: Path, faces: Path, frames: Frames, params: Params) -> Outputs:
    """Return the outputs for all frames: those of the training for fit and select, computed for the people of validation."""
    places = {name: training / ARTIFACTS[name] for name in ("labels", "faces", "h", "features", "mapping")}
    f = [training / ARTIFACTS["f"].format(trial=trial) for trial in params.trials]
    before = load_frames(places["labels"], places["faces"])
    parts = {name: places[name] for name in ("h", "features", "mapping")}
    known = read_outputs(before, f=f, **parts, ensemble=params.ensemble)
    fresh = frames.of_split(SPLIT)

    def join(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        joined = np.empty((len(frames), *old.shape[1:]), old.dtype)
        joined[~fresh], joined[fresh] = old[~before.of_split(SPLIT)], new[fresh]
        return joined

    scorer = Scorer(f, places["h"], list_members(f, params.ensemble)[1])
    scores = _score(scorer, FaceImages(faces, frames), load_quality(faces, frames), frames)
    extractor = Extractor.load(places["features"], params.extract_features)
    smoothed, features = _features(extractor, scores, load_quality(faces, frames), frames, params)
    raws = Mapping.load(places["mapping"]).map_all({route: Features(matrix) for route, matrix in features.items()})
    return replace(
        known,
        **{name: join(getattr(known, name), getattr(scores, name)) for name in FaceScores._fields},
        raws={route: join(raw, raws[route]) for route, raw in known.raws.items()},
        smoothed={route: join(values, smoothed[route]) for route, values in known.smoothed.items()},
    )


def _score(scorer: Scorer, images: FaceImages, quality: np.ndarray, frames: Frames) -> FaceScores:
    """Return the scores of the people of validation, (N, A) float32 each, NaN elsewhere and where there is no face."""
    scores = FaceScores(*(np.full(frames.labels.shape, np.nan, np.float32) for _ in FaceScores._fields))
    rows = np.flatnonzero(frames.of_split(SPLIT) & frames.ok)
    for start in range(0, len(rows), BATCH):
        own = rows[start : start + BATCH]
        for values, part in zip(scores, scorer(images(own), quality[own])):
            values[own] = part
    return scores


def _features(
    extractor: Extractor, scores: FaceScores, quality: np.ndarray, frames: Frames, params: Params
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the smoothed values, (N, A), and the features, (N, A, F), of the people of validation on each route."""
    smoothed: dict[str, np.ndarray] = {}
    features: dict[str, np.ndarray] = {}

    def put(arrays: dict[str, np.ndarray], route: str, rows: slice, values: np.ndarray) -> None:
        if route not in arrays:
            arrays[route] = np.full((len(frames), *values.shape[1:]), np.nan, np.float32)
        arrays[route][rows] = values

    for clips in _people(frames):
        videos = [VideoInput(scores.y_hat[r], scores.unguarded[r], quality[r], frames.time[r]) for r in clips]
        values = extractor.smooth(videos)
        pool = values if params.extract_features.neutral == "person" else None
        for rows, own in zip(clips, values):
            for route in own.spread:
                put(smoothed, route, rows, own.values[route])
            for route, part in extractor.features(own, pool).features().items():
                put(features, route, rows, part)
    return smoothed, features


def _people(frames: Frames) -> Iterator[list[slice]]:
    """Yield the rows of each clip of each person of validation."""
    people: dict[int, list[slice]] = {}
    for rows in frames.slices():
        if frames.of_split(SPLIT)[rows.start]:
            people.setdefault(int(frames.subject[rows.start]), []).append(rows)
    yield from people.values()
