#!/usr/bin/env bash
# Installs what the tests and the demo need beside Go: a Redis server and the ClickHouse library.
# Says in one sentence what is missing where it may not install it; with --demo a missing Redis is no error, because
# `millrace dev` then embeds one.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v redis-server >/dev/null && ! command -v valkey-server >/dev/null; then
  root=()
  if [[ $(id -u) -ne 0 ]]; then
    root=(sudo -n)
  fi
  if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
    if [[ ${1:-} == --demo ]]; then
      echo "redis-server is missing and this account may not install it: the embedded one is used."
    else
      echo "redis-server is missing and this account may not install it: install Redis 7 or newer so that redis-server is in PATH." >&2
      exit 1
    fi
  else
    echo "installing redis-server with apt-get"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
  fi
fi

go run ./cmd/millrace engine --fetch-only
