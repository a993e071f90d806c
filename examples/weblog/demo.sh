#!/usr/bin/env bash
# From a real web log to served features, in one go: start everything on this machine, replay the log, ask for features over
# HTTP before a batch run, after it, and after more events, and compare every served value with ClickHouse's own answer.
#
#   examples/weblog/demo.sh            needs bin/millrace (`make build`); `make demo` builds it first
#   KEEP=1 examples/weblog/demo.sh     leaves everything running at the end
set -euo pipefail
cd "$(dirname "$0")/../.."
millrace=${MILLRACE_BIN:-bin/millrace}
here=examples/weblog
data=$(mktemp -d "${TMPDIR:-/tmp}/millrace-demo.XXXXXX")
export MILLRACE_DEFINITIONS=$here/features.yaml MILLRACE_LOG_LEVEL=${MILLRACE_LOG_LEVEL:-warn}
visitors=(-e client=66.249.73.135 -e client=46.105.14.53 -e client=209.85.238.199 -e client=50.16.19.13 -e client=195.194.187.106)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Starting Kafka, Redis, ClickHouse, the speed layer and the HTTP API on free ports (data in $data)"
"$millrace" dev --data-dir "$data" --partitions 4 --port-kafka 0 --port-redis 0 --port-clickhouse 0 \
  --port-http 0 --port-admin 0 --port-speed 0 &
dev=$!
stop() {
  kill -INT "$dev" 2>/dev/null || true
  wait "$dev" 2>/dev/null || true
}
trap 'stop; rm -rf "$data"' EXIT
until [ -e "$data/endpoints.env" ]; do
  kill -0 "$dev" 2>/dev/null || { echo "millrace dev ended" >&2; exit 1; }
  sleep 0.2
done
# shellcheck disable=SC1091
. "$data/endpoints.env"

# audit prints its findings and sets as_of to the moment it read at: 1 ms after the newest event.
audit() {
  local out
  out=$("$millrace" audit)
  as_of=$(sed -n 's/.* as of \(-\{0,1\}[0-9]*\),.*/\1/p' <<<"$out")
  [ $# -gt 0 ] && return
  echo "$out"
}
show() {
  say "$1"
  "$millrace" get visits:hits visits:since visits:last_path visits:prev_hits visits:prev_length "${visitors[@]}" --as-of "$as_of"
  echo
  "$millrace" get traffic:hits_1h traffic:errors_1h traffic:bytes_1h traffic:mean_bytes_24h "${visitors[@]}" --as-of "$as_of"
}

say "Replaying the first 6,000 requests of a real web log"
"$millrace" produce access "$here/access.log" --format combined --limit 6000
audit quietly
show "Current and previous visit, and sliding windows, from the stream alone:"
say "Every visitor, compared with ClickHouse's own answer over the archive:"
audit

say "Batch run: history is folded in ClickHouse and becomes the base"
"$millrace" batch
show "The same questions, now answered from base and stream together:"
audit

say "The other 4,000 requests"
"$millrace" produce access "$here/access.log" --format combined --from-line 6001
audit quietly
show "And now:"
if [ "${KEEP:-}" ]; then
  say "Still running, as asked: Ctrl-C ends it."
  wait "$dev"
fi
say "Every visitor again, compared with ClickHouse's own answer over the archive:"
verdict=$("$millrace" audit)
stop
echo "$verdict"
