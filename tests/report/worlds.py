"""Small videos of validation with a known truth, and an evaluation in which nothing is active, decided or unsure."""

import numpy as np

from aupair.aus import AFFWILD2
from aupair.data.frames import Frames
from aupair.evaluation.evaluate import Evaluation
from evaluation.worlds import make_outputs
from frame_sets import make_frames


def frames_of(activity: list[int], subjects: list[int], length: int = 10) -> Frames:
    """Return videos of validation, two frames a second, with as many AUs that come and go as `activity` says."""
    labels = np.zeros((len(activity) * length, len(AFFWILD2)), np.int8)
    for video, changing in enumerate(activity):
        labels[video * length + 3 : video * length + 6, :changing] = 1
    return make_frames([2] * len(activity), labels, subjects, fps=2)


def evaluation_of(frames: Frames) -> Evaluation:
    """Return decisions that are all inactive with a confidence of 0.9 and a sigma of 1."""
    shape = frames.labels.shape
    outputs = make_outputs(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.zeros(shape), np.zeros(shape))
    return Evaluation({}, {}, {}, outputs, np.zeros(shape, bool), np.full(shape, 0.9))
