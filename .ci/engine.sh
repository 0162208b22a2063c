#!/usr/bin/env bash
# Find a container engine with a Docker API, or set one up, and print the variables for the caller to eval. Idempotent.
#   docker   if its engine is running
#   podman   otherwise (root on Debian installs it), with its API on a socket, and for builds the cache of wheels and the
#            certificate authorities of this machine. On Debian 12, root also builds a base image from Debian's packages,
#            since there may be no access to an image registry.
# On Debian, root also installs PostgreSQL's programs, for the tests that run an MLflow server.
set -euo pipefail
say() { echo "engine: $*" >&2; }
root=$([ "$(id -u)" = 0 ] && echo yes || true)
state=$([ -n "$root" ] && echo /run || echo "${XDG_RUNTIME_DIR:-/tmp/$(id -u)}")/aupair-engine
socket=unix://$state/podman.sock
base=localhost/aupair-base:bookworm-headers

install() {
    say "installing $*"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
can_install() { [ -n "$root" ] && command -v apt-get >/dev/null; }

if can_install && ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    install postgresql-common # first, so that installing postgresql creates no system cluster
    sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    install postgresql
fi

if [ "${DOCKER_HOST:-}" != "$socket" ] && docker info >/dev/null 2>&1; then
    say "using docker"
    echo "export ENGINE=docker"
    exit
fi

if ! command -v podman >/dev/null; then
    can_install || { say "no container engine; start docker, or install podman"; exit 1; }
    install podman buildah runc netavark aardvark-dns uidmap fuse-overlayfs iptables
fi
mkdir -p "$state"
if can_install && command -v runc >/dev/null; then # for machines without systemd
    cat >"$state/containers.conf" <<'C'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
C
    export CONTAINERS_CONF=$state/containers.conf
    echo "export CONTAINERS_CONF=$CONTAINERS_CONF"
fi

answers() { podman --remote --url "$socket" info >/dev/null 2>&1; }
if ! answers; then
    say "starting podman's API (it ends after an idle hour; log: $state/podman.log)"
    setsid nohup podman system service --time=3600 "$socket" >"$state/podman.log" 2>&1 </dev/null &
    for _ in $(seq 100); do answers && break; sleep 0.2; done
    answers || { say "podman's API does not answer"; tail -5 "$state/podman.log" >&2; exit 1; }
fi

if [ -n "$root" ] && [ -z "${BASE:-}" ] && grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
    if ! podman image exists "$base"; then
        say "making $base"
        command -v mmdebstrap >/dev/null || install mmdebstrap
        sources=$(find /etc/apt/sources.list.d/*debian.sources /etc/apt/sources.list -size +0 2>/dev/null | head -1) || true
        id=$(mmdebstrap -q --variant=minbase --include=python3,python3-dev,python3-pip,python3-venv,ca-certificates bookworm - \
            ${sources:+"$sources"} | podman import -q --change 'CMD ["python3"]' -)
        podman tag "$id" "$base" # last, so that an incomplete base image never has this name
    fi
    echo "export BASE=$base"
fi

authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
flags=
if [ -e "$authorities" ]; then
    echo "export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca" >"$state/env"
    flags="--secret=id=ca,src=$authorities --secret=id=env,src=$state/env"
fi
if command -v uv >/dev/null; then flags+=" --volume=$(uv cache dir):/root/.cache/uv"; fi
say "using $(podman --version)"
echo "export ENGINE=podman DOCKER_HOST=$socket BUILD_FLAGS='$flags'"
