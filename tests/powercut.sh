#!/usr/bin/env bash
# Power cuts without pulling a plug: does the store keep every commit that it called durable?
#
#   powercut.sh [CUTS [FILE_SYSTEM]]          default: 10 ext4
#
# A file system in a loop device; the writer of `journal_torture` on it; after a random moment all its threads are
# stopped and the file system is shut down with everything unsynced thrown away, as a power cut would. After mounting it
# again, the checker opens the store and names the last commit. None that was acknowledged may be missing.
#
# The same is then done to a writer that acknowledges before the sync. It must be caught losing commits: if it is not,
# the test shows nothing and fails.
#
# Exit: 0 as it should be, 1 something was lost (or the control lost nothing), 77 cannot run here.
set -u

cuts=${1:-10}
file_system=${2:-ext4}

skip() {
  echo "powercut: SKIPPED, nothing was tested: $1" >&2
  exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root"
command -v xfs_io >/dev/null || skip "needs xfs_io (package xfsprogs)"
command -v "mkfs.$file_system" >/dev/null || skip "needs mkfs.$file_system"
losetup --find >/dev/null 2>&1 || skip "needs a free loop device"

here=$(cd "$(dirname "$0")" && pwd)
torture=${JOURNAL_TORTURE:-}
if [ -z "$torture" ]; then
  (cd "$here" && cargo build --quiet -p weir-tests --bin journal_torture) || exit 1
  torture=${CARGO_TARGET_DIR:-$here/../target}/debug/journal_torture
fi

work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
writer=
cleanup() {
  [ -n "$writer" ] && kill -9 "$writer" 2>/dev/null
  umount -l "$disk" 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT

mount_disk() { mount -o loop "$work/image" "$disk"; }

fresh_disk() {
  umount "$disk" 2>/dev/null
  rm -f "$work/image"
  truncate -s 300M "$work/image"
  case $file_system in
    ext*) "mkfs.$file_system" -q -F "$work/image" ;;
    *) "mkfs.$file_system" -q -f "$work/image" ;;
  esac && mount_disk
}

# Every thread must stand still first: an acknowledgement printed during the shutdown would look like a loss.
stop_writer() {
  kill -STOP "$writer"
  local try
  for try in $(seq 200); do
    if ! cat /proc/"$writer"/task/*/status 2>/dev/null | grep '^State:' | grep -qv 'T (stopped)'; then
      return 0
    fi
    sleep 0.01
  done
  echo "powercut: the writer does not stop" >&2
  return 1
}

# run NAME [WRITER ARGUMENT]…: sets `lost` to the number of acknowledged commits that were missing, over all cuts, or to
# `broken` when the store did not open.
run() {
  local name=$1 cut acknowledged=0 found answer last
  shift
  lost=0
  fresh_disk || skip "cannot mount $file_system on a loop device"
  for cut in $(seq "$cuts"); do
    "$torture" write "$disk" "$@" >"$work/acknowledged" 2>"$work/errors" &
    writer=$!
    sleep "0.$((RANDOM % 600 + 200))"
    stop_writer || exit 1
    # Without `-f`: the log is thrown away, too.
    xfs_io -x -c shutdown "$disk" || skip "cannot shut $file_system down"
    kill -9 "$writer"
    wait "$writer" 2>/dev/null
    writer=
    # The last line may be half written.
    last=$(sed -n 's/^A \([0-9][0-9]*\)$/\1/p' "$work/acknowledged" | tail -n 1)
    if [ -z "$last" ]; then
      echo "powercut: $name, cut $cut: nothing was acknowledged: $(tail -n 1 "$work/errors")"
    elif [ "$last" -gt "$acknowledged" ]; then
      acknowledged=$last
    fi
    umount "$disk" && mount_disk || { echo "powercut: cannot mount again" >&2; exit 1; }
    if ! answer=$(RUST_BACKTRACE=0 "$torture" check "$disk" 2>&1); then
      echo "powercut: $name, cut $cut, $acknowledged commits acknowledged: $(echo "$answer" | tr -s '\n ' ' ')"
      lost=broken
      return
    fi
    found=${answer##*R }
    if [ "$found" -lt "$acknowledged" ]; then
      lost=$((lost + acknowledged - found))
      acknowledged=$found
    fi
  done
  echo "powercut: $name: $cuts cuts on $file_system, $acknowledged commits acknowledged, $lost lost"
  [ "$acknowledged" -gt "$cuts" ] || [ "$lost" != 0 ] || lost=nothing-written
}

run "store"
good=$lost
run "control without sync" --unsafe
bad=$lost

if [ "$good" != 0 ]; then
  echo "powercut: FAILED: acknowledged commits are lost ($good)"
  exit 1
fi
if [ "$bad" = 0 ]; then
  echo "powercut: FAILED: the control lost nothing, so this proves nothing"
  exit 1
fi
echo "powercut: passed"
