#!/bin/bash
# Between containerd's shim and runc or crun, by whose name it is called: does what this machine's
# kernel or the absence of systemd does not let them do, and then becomes them.
#
#   systemd's names   The runtime would ask systemd over D-Bus to make the cgroup. Here it is laid out as
#                     systemd would: "SLICE:PREFIX:NAME" is /….slice/PREFIX-NAME.scope.
#   CPU               The node's cgroup may have no such controller: then nothing is asked of it.
#   memory in v1      Where the memory controller is bound to cgroup v1, v2 cannot limit: the limit is set in
#                     v1, which the container's first process joins before it is one.
set -euo pipefail
root=$PODIDENTITY_RUNTIME_ROOT v1=/run/cgroup-memory places=/run/runtime/memory
program=$root/usr/bin/${0##*/}
[ -x "$program" ] || program=$root/usr/sbin/${0##*/}
export LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu
args=() bundle='' command=''
for ((i = 1; i <= $#; i++)); do
  word=${!i}
  next=$((i + 1))
  case $word in
    --systemd-cgroup) continue ;;
    --bundle) bundle=${!next} ;;
    create | exec) [ -n "$command" ] || command=$word ;;
  esac
  args+=("$word")
done

# Prints the path of a container's cgroup.
laid_out() {
  local path=$1 slice prefix name part up='' folder=''
  if [[ $path == *.slice:*:* ]]; then
    IFS=: read -r slice prefix name <<<"$path"
    IFS=- read -ra parts <<<"${slice%.slice}"
    for part in "${parts[@]}"; do
      up=${up:+$up-}$part
      folder+=/$up.slice
    done
    path=$folder/$prefix-$name.scope
  fi
  echo "$path"
}

if [ "$command" = create ]; then
  config=$bundle/config.json
  IFS=$'\t' read -r given limit < <(jq -r '[.linux.cgroupsPath, .linux.resources.memory.limit // 0] | @tsv' "$config")
  path=$(laid_out "$given")
  # A name with a colon is what runc makes of systemd's without systemd, when only the kubelet means systemd.
  [ -n "${PODIDENTITY_RUNTIME_SYSTEMD:-}" ] || path=$given
  change='.linux.cgroupsPath = $path'
  if [ -d $v1 ]; then
    change+=' | .linux.resources |= {devices}'
  elif ! grep -qw cpu /sys/fs/cgroup/cgroup.controllers; then
    change+=' | del(.linux.resources.cpu)'
  fi
  jq --arg path "$path" "$change" "$config" >"$config.new"
  mv "$config.new" "$config"
  if [ -d $v1 ]; then
    mkdir -p "$v1$path"
    [ "$limit" -le 0 ] || echo "$limit" >"$v1$path/memory.limit_in_bytes"
    echo $$ >"$v1$path/cgroup.procs"
    mkdir -p $places
    echo "$v1$path" >"$places/${args[-1]}"
  fi
elif [ "$command" = exec ] && [ -d $places ]; then
  for word in "${args[@]}"; do
    [ -f "$places/$word" ] || continue
    echo $$ >"$(cat "$places/$word")/cgroup.procs"
    break
  done
fi
exec "$program" "${args[@]}"
