"""The glossary of the report: the words of its texts, tables and figures in plain language."""

_DATA = (
    ("AU", "Action Unit: a visible movement of a part of the face, such as a raised eyebrow."),
    ("fit, select, validation", "The three parts of the data, divided by person: networks are trained on `fit`, choices are "
     "made on `select` (the paper's protocol makes them on `validation`), results are reported on `validation`."),
    ("fold", "A part of the people of `fit`. A network that has not seen a fold's people scores their frames (out of fold)."),
    ("trial", "One training of f with its own random seed."),
    ("pair", "Two frames of one video, of which one shows more of an AU than the other."),
)  # fmt: skip
_NETWORKS = (
    ("f, y_hat", "f is the network that is trained to order pairs. Its output for a frame and an AU is y_hat, the "
     "pseudo-intensity: higher means more of the AU. Its unit is the standard deviation over frames of `fit`."),
    ("trunk, pass", "The trunk is the large first part of a network. A pass is one face going through it."),
    ("h, sigma", "h is the network that estimates how uncertain a y_hat is, for example because a hand covers the face. "
     "Its output is sigma, in the unit of y_hat: higher means less certain."),
    ("guard", "The limit on sigma: where h does not beat a constant on people of `fit`, sigma is drawn toward that constant."),
    ("quality of the landmarks", "Signs in the positions of facial points that a face was measured badly."),
    ("smoothed", "A frame's y_hat averaged with that of its neighbours in time: the more uncertain the frame, the more its "
     "value is that of the neighbours."),
    ("features, G", "What is computed for each frame from the values of its whole video, such as its rank in the video."),
    ("mapping", "A small network for each AU that turns features into a number; the AU is active if that number is at least "
     "the threshold."),
    ("route", "A way from y_hat to a decision: with or without smoothing, and by which uncertainty."),
)  # fmt: skip
_ROWS = (
    ("no uncertainty", "All AUs are decided without sigma: y_hat is not smoothed."),
    ("control: the same noise everywhere", "y_hat is smoothed as if all frames were equally uncertain. It shows what smoothing "
     "adds without knowing which frames are uncertain."),
    ("P1, P2", "P1 decides every AU with uncertainty. P2 does so, except for the AUs for which this was worse on the data "
     "by which was chosen. P2 is what a registered model does."),
    ("all zero, all one, best constant", "Guesses that look at no picture: never active, always active, the better of the two "
     "for each AU."),
)  # fmt: skip
_SCORES = (
    ("F1, mean F1", "F1 of an AU is the harmonic mean of precision (the share of right ones among the frames decided active) and "
     "recall (the share found of those that are active). Mean F1 is the mean over AUs. 1 is best."),
    ("accuracy", "The share of right decisions over all AUs and frames. It is high for rare AUs even if nothing is found."),
    ("exact match", "The share of frames in which all AUs are right."),
    ("2021 score", "1/2 mean F1 + 1/2 accuracy, the measure of the competition in 2021."),
    ("balanced accuracy", "The mean of the shares that are right among active and among inactive frames; .5 is guessing."),
    ("average precision", "The mean precision over all thresholds: how well an AU's frames are ranked."),
    ("[a, b]", "A 95 % interval: the range of 95 % of the resamples of the people (bootstrap)."),
    ("confidence", "The claimed probability that a decision is right. Calibrated: among decisions of confidence .9, nine of ten "
     "are right."),
    ("coverage, risk", "If the least confident decisions are left out, coverage is the share that is kept and risk the share of "
     "wrong ones among these."),
    ("ECE, Brier score", "Errors of claimed probabilities, 0 is best: the mean distance between claimed and observed share, and "
     "the mean squared error."),
    ("pair accuracy, pair NLL", "The share of pairs in the right order; and the mean of -log of the probability that was claimed "
     "for the right order, which punishes wrong claims of certainty. Lower NLL is better."),
    ("AUROC, AURC", "AUROC: how well a number tells two groups apart (.5 guesses, 1 is perfect). AURC: the area under risk over "
     "coverage (lower is better)."),
    ("P(order), d, s", "The claimed probability of a pair's order: d is the difference of the two y_hat, s their joint sigma."),
    ("GMAC", "1e9 multiplications, each with an addition: how much a frame costs to compute."),
)  # fmt: skip
_INTENSITY = (
    ("ICC(3,1), PCC, MAE", "Measures of intensities: agreement up to an offset, correlation (1 is best for both), and the mean "
     "absolute error in levels (0 is best)."),
)  # fmt: skip


def glossary(intensity: bool) -> tuple[tuple[str, str], ...]:
    """Return the terms of the report, each with its meaning; intensity: with the measures of intensities."""
    return _DATA + _NETWORKS + _ROWS + _SCORES + (_INTENSITY if intensity else ())
