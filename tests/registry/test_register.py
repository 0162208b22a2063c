"""What register-model logs beside the bundle; the rest is in test_versions, on a real store."""

from pathlib import Path

from aupair import store
from aupair.aus import AFFWILD2
from aupair.evaluation.confidence import TERMS
from aupair.evaluation.selection import MAPPINGS
from aupair.registry.register import _version_tags
from aupair.registry.tags import split_figures


def test_the_tags_say_what_was_chosen_and_why(tmp_path: Path) -> None:
    entry = {"threshold": 0.5, "confidence": dict.fromkeys(TERMS, 0.0)}
    why = {"difference": 0.025, "probability_with_better": 0.875}
    tree = {au: {**entry, "mapping": MAPPINGS[au == "AU4"], **why} for au in AFFWILD2}
    del tree["AU26"]["difference"]
    store.write_json(tmp_path / "selection.json", {**tree, "tie": 0.01})
    figures = {"score": 0.7, "f1": 0.5, "per_au": {au: {"f1": 0.5} for au in AFFWILD2}}
    rows = [{"name": n, "split": s, **figures} for n in ("P1", "P2") for s in ("select", "validation")]
    stored = _version_tags(tmp_path, {"rows": rows})
    assert {"aus", "score.p2", "validation.f1.p1", "figures"} <= stored.keys()
    assert not [key for key in stored if key.startswith("f1.AU")], "one tag for all AUs"
    tags = split_figures(stored, "1")
    assert tags["f1.AU26"] == "0.500000"
    assert (tags["selection.AU4"], tags["selection.AU1"], tags["selection.tie"]) == ("P1", "P2", "0.010000")
    assert (tags["selection.AU4.difference"], tags["selection.AU4.probability"]) == ("0.025000", "0.875000")
    assert "selection.AU26.difference" not in tags, "one that is not known"
    assert "selection.AU26.probability" in tags
