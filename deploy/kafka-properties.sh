#!/usr/bin/env bash
# Prints the broker's settings of compose.yaml as a server.properties for a Kafka on this machine, so that there is one
# place to change them. Arguments: the data folder, the port (9092), the controller's port (9093).
set -euo pipefail
data=${1:?data folder}
port=${2:-9092}
controller=${3:-9093}
awk '/^  kafka:/ { on = 1 } /^  redis:/ { on = 0 }
  on && /^ +KAFKA_/ {
    sub(/^ +KAFKA_/, ""); sub(/ +#.*/, ""); gsub(/"/, "")
    colon = index($0, ": "); name = tolower(substr($0, 1, colon - 1)); gsub(/_/, ".", name)
    print name "=" substr($0, colon + 2)
  }' "$(dirname "$0")/../compose.yaml"
# Later lines win. On one machine there is one listener, on loopback.
cat <<END
listeners=INTERNAL://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=INTERNAL://127.0.0.1:$port
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$data
END
