"""The glossary of the report: explanations of the terms in its texts, tables and figures."""

_DATA = (
    ("AU", "Action Unit: a visible movement of a part of the face, such as a raised eyebrow."),
    ("fit, select, validation", "The three splits of the data, by person: networks are trained on `fit`, choices are made on "
     "`select` (with the paper's protocol on `validation`), and results are reported on `validation`."),
    ("fold", "A part of the people of `fit`. Their frames are scored out of fold: by a network that was not trained on them."),
    ("trial", "One training of f with its own random seed."),
    ("pair", "Two frames of one video, one of which shows more of an AU than the other."),
)  # fmt: skip
_NETWORKS = (
    ("f, y_hat", "f is the network that is trained to order pairs. Its output for a frame and an AU is y_hat, the "
     "pseudo-intensity: higher means more of the AU. Its unit is the standard deviation over frames of `fit`."),
    ("trunk, pass", "The trunk is the large first part of a network (the backbone). A pass is one evaluation of it on a face."),
    ("h, sigma", "h is the network that estimates how uncertain a y_hat is, for example because a hand covers the face. "
     "Its output is sigma, in the unit of y_hat: higher means less certain."),
    ("guard", "A safeguard of sigma: where h does not beat a constant on people of `fit`, sigma is shrunk toward that constant."),
    ("quality of the landmarks", "Measures of how reliably the facial points were located."),
    ("smoothed", "A frame's y_hat averaged with that of its neighbours in time: the more uncertain the frame, the higher the "
     "weight of the neighbours."),
    ("features, G", "The inputs of the mapping: for each frame, values computed from y_hat over the whole video, such as its "
     "rank in the video. G is the function that computes them."),
    ("mapping", "A small network for each AU that maps features to a number; the AU is active if the number is at least the "
     "threshold."),
    ("route", "A way from y_hat to a decision: with or without smoothing, and by which uncertainty."),
)  # fmt: skip
_ROWS = (
    ("no uncertainty", "All AUs are decided without sigma: y_hat is not smoothed."),
    ("control: the same noise everywhere", "y_hat is smoothed as if all frames were equally uncertain. The row shows the effect "
     "of smoothing alone."),
    ("P1, P2", "P1 decides every AU with uncertainty. P2 does so, except for AUs for which this was clearly worse on the split "
     "on which choices are made. A registered model decides as P2."),
    ("all zero, all one, best constant", "Constant guesses, which ignore the images: never active, always active, and the "
     "better of the two for each AU."),
)  # fmt: skip
_SCORES = (
    ("F1, mean F1", "F1 of an AU is the harmonic mean of precision (the share of the frames decided active that are active) and "
     "recall (the share of the active frames that are decided active). Mean F1 is the mean over AUs. 1 is best."),
    ("accuracy", "The share of right decisions over all AUs and frames. For rare AUs it is high even if all are decided inactive."),
    ("exact match", "The share of frames in which all AUs are right."),
    ("2021 score", "1/2 mean F1 + 1/2 accuracy, the measure of the competition in 2021."),
    ("balanced accuracy", "The mean of the shares that are right among active and among inactive frames; .5 is guessing."),
    ("average precision", "The mean precision over all thresholds: how well an AU's frames are ranked."),
    ("[a, b]", "A 95 % interval: the central range of 95 % of the bootstrap resamples of the people."),
    ("confidence", "The claimed probability that a decision is right. If it is calibrated, nine of ten decisions of confidence .9 "
     "are right."),
    ("coverage, risk", "If the least confident decisions are left out, coverage is the share that is kept and risk the share of "
     "wrong ones among these."),
    ("ECE, Brier score", "Errors of claimed probabilities, 0 is best: the mean distance between claimed and observed share, and "
     "the mean squared error."),
    ("pair accuracy, pair NLL", "The share of pairs in the right order; and the mean of -log of the probability claimed for the "
     "right order, which penalises overconfidence. Lower NLL is better."),
    ("AUROC, AURC", "AUROC: how well a number separates two groups (.5 is chance, 1 is perfect). AURC: the area under the curve "
     "of risk over coverage (lower is better)."),
    ("P(order), d, s", "The claimed probability of a pair's order: d is the difference of the two y_hat, s their joint sigma."),
    ("GMAC", "1e9 multiply-accumulate operations: the cost of a frame."),
)  # fmt: skip
_INTENSITY = (
    ("ICC(3,1), PCC, MAE", "Measures of intensities: consistency (agreement up to an offset) and correlation, 1 is best for both; "
     "and the mean absolute error in levels, 0 is best."),
)  # fmt: skip


def glossary(intensity: bool) -> tuple[tuple[str, str], ...]:
    """Return the terms of the report with their explanations; `intensity` includes the measures of intensities."""
    return _DATA + _NETWORKS + _ROWS + _SCORES + (_INTENSITY if intensity else ())
