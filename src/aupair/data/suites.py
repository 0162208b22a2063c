"""Great Expectations: the rules that the data must keep, checked over whole tables, shown as Data Docs (HTML).

The only module that imports great_expectations; it takes seconds to import, so only inside functions.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aupair import store
from aupair.aus import AUS, NOT_ANNOTATED, SPLITS

if TYPE_CHECKING:
    import pandas as pd


def validate(tables: Mapping[str, "pd.DataFrame"], docs: Path, missing_videos: int = 0) -> list[str]:
    """Check tables against the suites of their names and write the Data Docs.

    Args:
        tables: any of `annotations` and `intensities` (video, frame, AUs), `videos` (video, file, split),
            `splits` (video, subject, split, splits_of_subject), `positives` (au, fit, select, validation).
        docs: folder of the Data Docs, replaced.
        missing_videos: how many labelled videos may lack a file.

    Returns:
        The rules that are broken, in words; empty when all hold.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("aupair")
    broken: list[str] = []
    for name, table in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(
            gx.ExpectationSuite(name=name, expectations=_expectations(name, table, missing_videos))
        )
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        outcome = definition.run(batch_parameters={"dataframe": table})
        broken += [_describe(name, result) for result in outcome.results if not result.success]
    with store.atomic(docs) as folder:
        _write_docs(context, folder)
    return broken


def _expectations(name: str, table: "pd.DataFrame", missing_videos: int) -> list[Any]:
    """The suite of a table."""
    import great_expectations.expectations as gxe

    unique = gxe.ExpectCompoundColumnsToBeUnique(column_list=["video", "frame"])
    if name == "annotations":
        # not ExpectColumnDistinctValuesToBeInSet: the Data Docs of a failing one cannot be rendered
        return [*(gxe.ExpectColumnValuesToBeInSet(column=au, value_set=[NOT_ANNOTATED, 0, 1]) for au in AUS), unique]
    if name == "intensities":
        filled = [gxe.ExpectColumnValuesToNotBeNull(column=au) for au in AUS]
        return [*filled, *(_intensity_range(au) for au in AUS), unique]
    if name == "videos":
        present = max(len(table) - missing_videos, 0) / max(len(table), 1) - 1e-9
        return [
            gxe.ExpectColumnValuesToBeUnique(column="video"),
            gxe.ExpectColumnValuesToNotBeNull(column="file", mostly=max(present, 0)),
            gxe.ExpectColumnValuesToNotBeNull(column="split"),
        ]
    if name == "splits":
        return [
            gxe.ExpectColumnValuesToBeUnique(column="video"),
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
            gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=list(SPLITS)),
            gxe.ExpectColumnValuesToBeBetween(column="splits_of_subject", min_value=1, max_value=1),
        ]
    return [gxe.ExpectColumnValuesToBeBetween(column="fit", min_value=1)]


def _intensity_range(au: str) -> Any:
    """0 to 5 wherever an intensity is annotated."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    return gxe.ExpectColumnValuesToBeBetween(
        column=au, min_value=0, max_value=5, row_condition=Column(au) != NOT_ANNOTATED
    )


def _describe(name: str, result: Any) -> str:
    """Say in words which rule of which table is broken."""
    config = result.expectation_config
    kwargs = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    return f"{name}: {config.type} {kwargs}"


def _write_docs(context: Any, folder: Path) -> None:
    """Render suites and results as HTML below `folder`."""
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        site_name="data_docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
        },
    )
    context.build_data_docs()
