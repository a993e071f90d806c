#!/usr/bin/env bash
# Runs a command beside a broker of Apache Kafka (KRaft, one node, on loopback, in a folder of its own), whose address it gives
# in MILLRACE_TEST_KAFKA. The broker is fetched once through Maven into the user's cache folder; needs Java 17 and Maven.
#
#   tools/kafka.sh go test ./speed
set -euo pipefail
for program in java mvn; do
  command -v "$program" >/dev/null || { echo "$program is missing: Apache Kafka needs Java 17, and Maven to be fetched." >&2; exit 1; }
done
here=$(cd "$(dirname "$0")/kafka" && pwd)
lib=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/kafka/$(sha256sum "$here/pom.xml" | cut -c1-16)
if [[ ! -e $lib/complete ]]; then
  echo "fetching Apache Kafka" >&2
  rm -rf "$lib"
  mvn -q -B -f "$here/pom.xml" -Dlib="$lib" package >&2
  touch "$lib/complete"
fi

data=$(mktemp -d "${TMPDIR:-/tmp}/millrace-kafka.XXXXXX")
port() { # a free port
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo $((20000 + RANDOM % 20000))
}
client=$(port) controller=$(port)
cat >"$data/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$client,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$client
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$data/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
log.retention.hours=-1
END
cat >"$data/log4j2.properties" <<END
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m%n
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
END
java=(java -Xms256m -Xmx512m -XX:+UseG1GC "-Dlog4j2.configurationFile=$data/log4j2.properties" -cp "$lib/*")
"${java[@]}" kafka.tools.StorageTool format -t bWlsbHJhY2UtdGVzdGthZg -c "$data/server.properties" >"$data/format.out" 2>&1 || { cat "$data/format.out" >&2; exit 1; }
"${java[@]}" kafka.Kafka "$data/server.properties" >"$data/broker.out" 2>&1 &
broker=$!
stop() {
  kill "$broker" 2>/dev/null || true
  wait "$broker" 2>/dev/null || true
  rm -rf "$data"
}
trap stop EXIT
for ((i = 0; ; i++)); do
  grep -q 'Kafka Server started' "$data/broker.out" && (: <"/dev/tcp/127.0.0.1/$client") 2>/dev/null && break
  if ((i > 300)) || ! kill -0 "$broker" 2>/dev/null; then
    tail -20 "$data/broker.out" >&2
    exit 1
  fi
  sleep 0.2
done
echo "Apache Kafka at 127.0.0.1:$client" >&2
MILLRACE_TEST_KAFKA=127.0.0.1:$client "$@"
