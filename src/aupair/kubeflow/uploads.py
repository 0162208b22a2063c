"""The upload of a compiled pipeline, for runs that are started from Kubeflow's web UI (`aupair pipeline upload`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from aupair.errors import AupairError, RejectedError
from aupair.kubeflow.pipeline_file import PipelineFile
from aupair.kubeflow.runs import ServerObject, dropped_error, name_filter, settings_dropped
from aupair.kubeflow.server import Connection
from aupair.kubeflow.server_errors import kfp_errors


def upload_pipeline(
    connection: Connection, file: PipelineFile, name: str = "", version: str = ""
) -> tuple[ServerObject, bool]:
    """Upload a file as a version of a pipeline, and create the pipeline if it does not exist.

    Args:
        name: the name of the pipeline; by default that in the file.
        version: the name of the version; by default the hash of the file, so that uploading it again changes nothing.

    Returns:
        The version, and whether it is new.

    Raises:
        RejectedError: a version of that name holds another file, or the server rejects the upload.
    """
    version = version or f"sha256-{file.digest}"
    with _pipeline(connection, name or file.name, file) as pipeline_id:
        version_id = _find_version(connection, pipeline_id, file, version)
        created = version_id is None
        if version_id is None:
            with kfp_errors(connection.server, f"upload {file.path.name}"):
                answer = connection.uploads.upload_pipeline_version(
                    str(file.path), name=version, pipelineid=pipeline_id, description=f"sha256 {file.digest}"
                )
            version_id = str(answer.pipeline_version_id)
            if settings_dropped(file, answer.pipeline_spec):
                with kfp_errors(connection.server, f"delete version {version}, which lacks the file's settings"):
                    connection.pipelines.pipeline_service_delete_pipeline_version(pipeline_id, version_id)
                raise dropped_error(file, "the version was deleted")
    page = f"{connection.server.ui}/#/pipelines/details/{pipeline_id}/version/{version_id}"
    return ServerObject(version_id, version, page if connection.server.ui else ""), created


@contextmanager
def _pipeline(connection: Connection, name: str, file: PipelineFile) -> Iterator[str]:
    """Yield the id of a pipeline, which is created if needed; a pipeline created here is deleted if the block fails."""
    from kfp_server_api import V2beta1Pipeline

    pipelines = connection.pipelines
    with kfp_errors(connection.server, "list the pipelines"):
        answer = pipelines.pipeline_service_list_pipelines(namespace=connection.namespace, filter=name_filter(name))
    if answer.pipelines:
        yield str(answer.pipelines[0].pipeline_id)
        return
    description = file.spec["pipelineInfo"].get("description", "")  # lists the inputs; KFP's web UI shows it
    request = V2beta1Pipeline(display_name=name, name=name, namespace=connection.namespace, description=description)
    with kfp_errors(connection.server, f"create pipeline {name}"):
        pipeline_id = str(pipelines.pipeline_service_create_pipeline(request).pipeline_id)
    try:
        yield pipeline_id
    except AupairError:
        with kfp_errors(connection.server, f"delete the empty pipeline {name}"):
            pipelines.pipeline_service_delete_pipeline(pipeline_id)
        raise


def _find_version(connection: Connection, pipeline_id: str, file: PipelineFile, version: str) -> str | None:
    """Return the id of the version of this name, which must hold this file; None if there is no such version.

    Raises:
        RejectedError: the version of that name holds another file.
    """
    with kfp_errors(connection.server, "list the versions of the pipeline"):
        answer = connection.pipelines.pipeline_service_list_pipeline_versions(pipeline_id, filter=name_filter(version))
    for row in answer.pipeline_versions or ():
        if file.digest not in (row.description or ""):
            todo = "name another version with --version"
            raise RejectedError("a version of this name exists already and holds another file", got=version, todo=todo)
        return str(row.pipeline_version_id)
    return None
