#!/usr/bin/env bash
# Builds the image of the Dockerfile where no Docker engine runs, starts it, and gets an answer from inside it.
#
#   deploy/build_image.sh                       as root, with buildah and debootstrap (Debian: apt-get install both)
#   BUNDLES=folder deploy/build_image.sh        serve these bundles instead of those in the image
#
# The Dockerfile's python:3.11-slim is played by a Debian 12, whose python3 is 3.11, made by debootstrap from the mirror
# that apt uses. The image does not hold this machine's pip settings and certificates: they are mounted while it is built.
#
#   IMAGE          name of the result                   localhost/zorro-av:cpu
#   PYTHON_IMAGE   base to use instead of debootstrap   (none)
#   MIRROR         Debian mirror                        the one of apt
#   CLIP           file to ask about                    a tone
#   REBUILD_BASE   1: make the base again               (kept from the last time)
set -euo pipefail
cd "$(dirname "$0")/.."
IMAGE=${IMAGE:-localhost/zorro-av:cpu}
BASE=localhost/zorro-debian12-python:3.11
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs BUILDAH_FORMAT=docker # OCI images have no health check

fail() { echo "build_image.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "chroot isolation needs root; run it with sudo"
command -v buildah >/dev/null || fail "buildah is missing; on Debian: apt-get install buildah debootstrap"

work=$(mktemp -d)
container=
clean() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT

mirror() {
    local uri
    uri=$(apt-get --print-uris download hostname | sed -n "s/^'\([^']*\)\/pool\/.*/\1/p" | head -n 1)
    [ -n "$uri" ] || fail "apt names no mirror; set MIRROR to a Debian mirror"
    echo "$uri"
}

make_base() {
    command -v debootstrap >/dev/null || fail "debootstrap is missing; on Debian: apt-get install debootstrap"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
        "$work/root" "${MIRROR:-$(mirror)}" >"$work/debootstrap.log" || fail "$(tail -n 5 "$work/debootstrap.log")"
    rm -rf "$work/root/var/cache/apt/archives" "$work/root/var/lib/apt/lists"
    container=$(buildah from scratch)
    buildah copy --quiet "$container" "$work/root" / >/dev/null
    buildah config --env LANG=C.UTF-8 --cmd python3 "$container"
    buildah commit --quiet "$container" "$BASE" >/dev/null
    buildah rm "$container" >/dev/null
    container=
    rm -rf --one-file-system "$work/root"
}

# pip's settings of this machine, whichever file or variable they come from, with the local folders they name.
mounts=()
mount_if_there() { [ ! -e "$1" ] || mounts+=(--volume "$1:$1:ro"); }
mount_host_settings() {
    # pip lists its variables as `:env:`; they become part of the file.
    python3 -m pip config list | python3 -c '
import ast, configparser, sys
settings = configparser.RawConfigParser()
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    section, _, name = key.rpartition(".")
    section = "global" if section == ":env:" else section
    if not settings.has_section(section):
        settings.add_section(section)
    words = ast.literal_eval(value).split() if value[:1] in "\"\x27" else [value]
    if name.replace("_", "-") in ("find-links", "extra-index-url") and settings.has_option(section, name):
        words = list(dict.fromkeys(settings.get(section, name).split() + words))
    settings.set(section, name, "\n    ".join(words))
settings.write(sys.stdout)' >"$work/pip.conf"
    mounts+=(--volume "$work/pip.conf:/etc/pip.conf:ro")
    local path
    # The pages of a local index, .../simple, point at files beside it.
    while read -r path; do mount_if_there "${path%/simple}"; done < <(
        sed -nE 's/^(.*[=[:space:]])?(file:\/\/)?(\/[^[:space:]]+)$/\3/p' "$work/pip.conf" | sort -u
    )
    for path in /etc/ssl/certs /usr/share/ca-certificates /usr/local/share/ca-certificates; do mount_if_there "$path"; done
}

base=${PYTHON_IMAGE:-$BASE}
if [ "$base" = "$BASE" ] && { [ "${REBUILD_BASE:-}" = 1 ] || ! buildah inspect --type image "$BASE" >/dev/null 2>&1; }; then
    echo "making the base: $BASE"
    make_base
fi
mount_host_settings
echo "building $IMAGE"
buildah bud --quiet --pull-never --target cpu --build-arg PYTHON_IMAGE="$base" "${mounts[@]}" --tag "$IMAGE" . >/dev/null

container=$(buildah from --pull-never "$IMAGE")
run=(buildah run --volume "$PWD/deploy:/check:ro")
ask=(python /check/check_serving.py)
[ -z "${BUNDLES:-}" ] || run+=(--volume "$(realpath "$BUNDLES"):/bundles:ro")
if [ -n "${CLIP:-}" ]; then
    run+=(--volume "$(realpath "$CLIP"):/clip/$(basename "$CLIP"):ro")
    ask+=(--clip "/clip/$(basename "$CLIP")")
fi
echo "asking inside, as user $("${run[@]}" "$container" -- id -u)"
"${run[@]}" "$container" -- "${ask[@]}"
echo "size: $(du -sh "$(buildah mount "$container")" | cut -f1)"
