"""fetch-data: copy the data folder from a bucket, a git repository or a mounted folder; DVC uses data.dvc instead."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch_data(source: str, revision: str, remote: str, data: dsl.Output[dsl.Dataset]) -> None:
    """Fetch the data folder: s3://bucket/prefix, git+URL at a revision (its data.dvc is pulled), or a mounted path."""
    from aupair.kubeflow.step import fetch_data_folder

    fetch_data_folder(source, revision, remote, data)
