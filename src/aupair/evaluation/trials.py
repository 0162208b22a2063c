"""Read what a trial's stages left, as evaluate and the ablation need it."""

from pathlib import Path

from aupair.data.frames import Frames
from aupair.evaluation.selection import Trial


def read_trial(frames: Frames, number: int, *, f: Path, h: Path, features: Path, mapping: Path) -> Trial:
    """Read y_hat and sigma of every frame, and map the features, video by video.

    Raises:
        ArtifactError: a file is missing, corrupt, or of other frames.
    """
    from aupair.mapping.features import open_features
    from aupair.mapping.fit import Mapping
    from aupair.ranking.scores import read_sigma, read_y_hat

    raw = Mapping.load(mapping).map_all(open_features(features, frames))
    return Trial(number, read_y_hat(f, len(frames)), read_sigma(h, len(frames)), *raw)
