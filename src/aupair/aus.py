"""The Action Units (AUs): their order and names, the label of a frame without annotation, the splits."""

AUS: tuple[str, ...] = (
    "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26",
)  # fmt: skip
"""The 12 AUs of Aff-Wild2 (ABAW 2021), in the order of its annotation files and of every array here."""

NAMES: dict[str, str] = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU15": "lip corner depressor",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
}
"""The name of each AU in the Facial Action Coding System."""

NOT_ANNOTATED = -1
"""The label of every AU in a frame without annotation; in Aff-Wild2's files a single -1 in a row marks such a frame."""

SPLITS: tuple[str, ...] = ("fit", "select", "validation")
"""Networks are trained on `fit`, every choice is made on `select`, and `validation` is scored once."""
