"""fetch-data: from a bucket, a git repository or a mounted folder to the data folder. Under DVC, data.dvc does this."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch_data(source: str, revision: str, remote: str, data: dsl.Output[dsl.Dataset]) -> None:
    """Bring the data folder: s3://bucket/prefix, git+URL at a revision (its data.dvc is pulled), or a mounted path."""
    from aupair.kubeflow.step import fetch_data

    fetch_data(source, revision, remote, data)
