"""The Data Docs of check-data: Great Expectations' suites and results as JSON, and as a page that works offline.

The pages that Great Expectations builds load styles, scripts and fonts from the network and contain the time of the run.
This page loads nothing, and equal data give equal files; MLflow records when check-data ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aupair import store

RUN = "check-data"
"""The name of the validation run in Great Expectations."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Outcome:
    """The results of one table.

    Attributes:
        asset: the name of the table, of its asset and of its suite in Great Expectations.
        about: what a row of the table describes.
        rows: the number of rows.
        result: Great Expectations' result of the suite, as `to_json_dict` returns it.
    """

    asset: str
    about: str
    rows: int
    result: Mapping[str, Any]

    @property
    def rules(self) -> list[dict[str, Any]]:
        """Return the rules and their results without the batch identifiers, which are random."""
        return [
            {
                "type": entry["expectation_config"]["type"],
                "description": entry["expectation_config"]["description"],
                "kwargs": {k: v for k, v in entry["expectation_config"]["kwargs"].items() if k != "batch_id"},
                "success": entry["success"],
                "result": entry["result"],
            }
            for entry in self.result["results"]
        ]

    @property
    def broken(self) -> int:
        """Return the number of broken rules."""
        return sum(not rule["success"] for rule in self.rules)


def write_data_docs(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write index.html and, for each table, expectations/TABLE.json and validations/TABLE.json into an empty folder."""
    for outcome in outcomes:
        version, rules = outcome.result["meta"]["great_expectations_version"], outcome.rules
        suite = [{key: rule[key] for key in ("type", "description", "kwargs")} for rule in rules]
        meta = {"great_expectations_version": version}
        expectations = {"name": outcome.asset, "expectations": suite, "meta": meta}
        validation = {
            "run_name": RUN, "data_asset_name": outcome.asset, "suite_name": outcome.asset,
            "success": outcome.result["success"], "statistics": outcome.result["statistics"], "results": rules, "meta": meta,
        }  # fmt: skip
        store.write_json(folder / "expectations" / f"{outcome.asset}.json", expectations)
        store.write_json(folder / "validations" / f"{outcome.asset}.json", validation)
    store.write_text(folder / "index.html", _page(outcomes))


def _page(outcomes: Sequence[Outcome]) -> str:
    """Return the page: the status of each table and rule, with examples of rows that violate a rule."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aupair", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    template = environment.get_template("data/data_docs.html.j2")
    return template.render(outcomes=outcomes, run=RUN, policy=_POLICY, broken=sum(o.broken for o in outcomes)) + "\n"
