"""The rules for parsed data, which Great Expectations checks over whole tables; `data_docs` shows the results.

This is the only module that imports great_expectations, and only inside functions, since the import takes seconds.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import NOT_ANNOTATED
from aupair.data.data_docs import RUN, Outcome, write_data_docs
from aupair.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = 3
"""The number of example rows that are shown for a broken rule."""


_INDEX = {
    "videos": ("video", "path", "problem"),
    "annotations": ("file", "line"),
    "intensities": ("file", "line"),
    "annotated": ("folder", "rows"),
    "positives": ("au", "annotated", "splits"),
}
"""The tables, in the order in which their errors are reported, and the columns that describe a row in an error."""

_ABOUT = {
    "videos": "a labelled video",
    "annotations": "a line of an annotation file",
    "intensities": "a line of an intensity file",
    "annotated": "a folder of annotations",
    "positives": "an AU",
}
"""What a row of each table describes."""

_CELL = {"what": "a label out of range", "where": "{file} line {line} column {column}", "got": "{value:g}"}
_ERRORS: dict[str, dict[str, str]] = {
    "videos": {
        "what": "{problem}",
        "where": "{path}",
        "got": "no readable movie, no crops of {video}{more}",
        "expected": "at most {missing_videos} missing",
        "todo": "add the file, or raise check_data.max_missing_videos",
    },
    "annotations": {**_CELL, "expected": "-1, 0 or 1"},
    "intensities": {**_CELL, "expected": "-1 or 0 to 5"},
    "annotated": {"what": "no annotated frame", "where": "{folder}", "got": "{rows} label rows, none annotated"},
    "positives": {
        "what": "an AU without a positive",
        "where": "{splits}",
        "got": "{au}: 0 of {annotated} annotated frames of fit",
        "expected": "at least 1",
        "todo": "move a subject who shows it to fit, or name the other AUs in `aus`",
    },
}
"""The error for a broken rule of each table; the fields are filled from the first row that violates the rule."""


def validate_tables(tables: Mapping[str, "pd.DataFrame"], docs: Path, missing_videos: int = 0) -> list[DataError]:
    """Check each table against its rules and write the Data Docs.

    Args:
        tables: any of `videos` (columns video, path, problem, file), `annotations` and `intensities` (file, line, AUs),
            `annotated` (folder, rows, annotated) and `positives` (au, splits, annotated, fit).
        docs: folder of the Data Docs; it is replaced.
        missing_videos: maximum number of labelled videos without a file.

    Returns:
        An error for each broken rule, which names the first row that violates it.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.core import RunIdentifier
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("aupair")
    errors: list[DataError] = []
    outcomes: list[Outcome] = []
    for name, index in _INDEX.items():
        if name not in tables:
            continue
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        expectations = _expectations(name, tables[name], missing_videos)
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        outcome = definition.run(
            batch_parameters={"dataframe": tables[name]},
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": list(index),
                "partial_unexpected_count": _EXAMPLES,
            },
            run_id=RunIdentifier(run_name=RUN),
        )
        errors += [_error(name, result, missing_videos) for result in outcome.results if not result.success]
        outcomes.append(Outcome(name, _ABOUT[name], len(tables[name]), outcome.to_json_dict()))
    with store.atomic(docs) as folder:
        write_data_docs(folder, outcomes)
    return errors


def _expectations(name: str, table: "pd.DataFrame", missing_videos: int) -> list[Any]:
    """Return the rules of a table."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    aus, rows = [column for column in table.columns if column not in _INDEX[name]], len(table)
    if name == "annotations":
        labels, text = [NOT_ANNOTATED, 0, 1], "{} is -1 (not annotated), 0 or 1"
        return [gxe.ExpectColumnValuesToBeInSet(column=au, value_set=labels, description=text.format(au)) for au in aus]
    if name == "intensities":
        return [
            gxe.ExpectColumnValuesToBeBetween(
                column=au,
                min_value=0,
                max_value=5,
                row_condition=Column(au) != NOT_ANNOTATED,
                description=f"{au} is -1 (not annotated) or from 0 to 5",
            )
            for au in aus
        ]
    if name == "videos":
        present = max(rows - missing_videos, 0) / max(rows, 1) - 1e-9
        text = f"a labelled video has a readable file; at most {missing_videos} may lack one"
        return [gxe.ExpectColumnValuesToNotBeNull(column="file", mostly=max(present, 0), description=text)]
    column, text = {
        "annotated": ("annotated", "at least one row of the folder is annotated"),
        "positives": ("fit", "the AU is active in at least one annotated frame of fit"),
    }[name]
    return [gxe.ExpectColumnValuesToBeBetween(column=column, min_value=1, description=text)]


def _error(name: str, result: Any, missing_videos: int) -> DataError:
    """Return the error for a broken rule of a table; it names the first row that violates the rule."""
    column, others = result.expectation_config.kwargs["column"], result.result["unexpected_count"] - 1
    row = result.result["partial_unexpected_index_list"][0]
    more = f" (and {others} more)" if others else ""
    fields = {**row, "column": column, "value": row[column], "more": more, "missing_videos": missing_videos}
    return DataError(**{key: text.format(**fields) for key, text in _ERRORS[name].items()})
