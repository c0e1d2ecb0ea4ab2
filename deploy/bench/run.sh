#!/usr/bin/env bash
# Measures stent beside nginx and HAProxy of this machine's distribution, and
# prints a table of ratios. See README.md for how to read it.
#
#   ./run.sh                              # about three minutes
#   ./run.sh 2>reports.txt                # the table alone, the reports to a file
#   DURATION=10s ./run.sh echo-64 churn   # longer, and only these
#
# STENT names the binary; without it one is built with Go.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

duration=${DURATION:-5s}
declare -A ports=([echo]=19400 [stent]=19401 [nginx]=19402 [haproxy]=19403) # as in the configurations

# scenario: what stent bench gets for it
declare -A flags=(
	[echo-64]="--mode echo --connections 100"
	[echo-16k]="--mode echo --connections 100 --size 16KiB"
	[pipelined]="--mode echo --connections 50 --in-flight 16"
	[rate]="--mode rate --connections 100 --rate 2000"
	[churn]="--mode churn --connections 20"
	[bulk]="--mode bulk --connections 4"
	[idle]="--mode idle --connections 2000"
)
scenarios=(echo-64 echo-16k pipelined rate churn bulk idle)
[ $# -eq 0 ] || scenarios=("$@")
for scenario in "${scenarios[@]}"; do
	[ -n "${flags[$scenario]-}" ] || { echo "no scenario $scenario: there are ${!flags[*]}" >&2; exit 2; }
done

work=$(mktemp -d)
declare -A pids=() # of what runs, by name
stop() { # NAME...
	local name
	for name in "$@"; do
		kill "${pids[$name]}" 2>/dev/null || true
		wait "${pids[$name]}" 2>/dev/null || true
		unset "pids[$name]"
	done
}
finish() {
	status=$?
	stop "${!pids[@]}"
	[ "$status" -eq 0 ] || tail -n 5 "$work"/*.log >&2 2>/dev/null || true
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

stent=${STENT:-}
if [ -z "$stent" ]; then
	stent=$work/stent
	(cd "$here/../.." && CGO_ENABLED=0 go build -trimpath -o "$stent" ./cmd/stent)
fi
PATH=$PATH:/usr/sbin # where distributions put proxies
ulimit -n "$(ulimit -H -n)"

# The proxies have one core, and only the one under load uses it; the
# generator and the backend have the others.
proxy_core=() load_cores=()
cores=$(nproc)
if [ "$cores" -gt 1 ] && command -v taskset >/dev/null; then
	proxy_core=(taskset -c 0)
	load_cores=(taskset -c "1-$((cores - 1))")
fi

start() { # NAME COMMAND...: in the background, with its log
	local name=$1
	shift
	"$@" >"$work/$name.log" 2>&1 &
	pids[$name]=$!
}

up() { # PORT: waits until a WebSocket echoes there
	local tries
	for tries in $(seq 100); do
		"$stent" bench "ws://127.0.0.1:$1" --connections 1 --duration 1ms --warmup 0s >/dev/null 2>&1 && return
		[ "$tries" -lt 100 ] || { echo "nothing echoes at port $1" >&2; return 1; }
		sleep 0.1
	done
}

start echo "${load_cores[@]}" "$stent" bench-echo --listen "127.0.0.1:${ports[echo]}"
up "${ports[echo]}"

peers=()
versions="$("$stent" version | sed -n 1p)"
if command -v nginx >/dev/null; then
	peers+=(nginx)
	mkdir "$work/nginx"
	versions+="; $(nginx -v 2>&1 | sed 's/nginx version: //')"
fi
if command -v haproxy >/dev/null; then
	peers+=(haproxy)
	versions+="; $(haproxy -v | sed -nE '1s/ version ([^ ]+).*/ \1/p')"
fi
[ "${#peers[@]}" -gt 0 ] || { echo "neither nginx nor haproxy is installed" >&2; exit 1; }

proxy() { # NAME: starts it afresh, as what it has held before shows in its memory
	case $1 in
	stent) start stent env GOMAXPROCS=1 "${proxy_core[@]}" "$stent" serve -c "$here/stent.yaml" ;;
	nginx) start nginx "${proxy_core[@]}" nginx -p "$work/nginx" -c "$here/nginx.conf" -e stderr ;;
	haproxy) start haproxy "${proxy_core[@]}" haproxy -db -f "$here/haproxy.cfg" ;;
	esac
	up "${ports[$1]}"
}

cell() { # ROW FILE: the ratio in a report's row
	local ratio
	ratio=$(grep -E "^$1 " "$2" | grep -oE '[0-9.]+ \([0-9.]+–[0-9.]+\)$' || true)
	ratio=${ratio:--}
	echo "${ratio/–/-}" # printf pads by bytes
}

echo "$versions"
echo "$cores cores; stent over the peer, median (lowest-highest) of the rounds in $duration"
echo
line() { printf '%-10s %-8s %-17s %-17s %-17s %-17s %s\n' "$@"; }
line scenario peer "CPU per message" "per second" "latency p50" "latency p99" "memory/connection"
report=$work/report.txt
for scenario in "${scenarios[@]}"; do
	for peer in "${peers[@]}"; do
		proxy stent
		proxy "$peer"
		# In the background, so that a signal does not wait for its end.
		# shellcheck disable=SC2086 # flags are words
		"${load_cores[@]}" "$stent" bench "ws://127.0.0.1:${ports[stent]}" --compare "ws://127.0.0.1:${ports[$peer]}" \
			--cpu "${pids[stent]},${pids[$peer]}" --duration "$duration" ${flags[$scenario]} >"$report" &
		pids[bench]=$!
		wait "${pids[bench]}"
		unset "pids[bench]"
		stop stent "$peer"
		{ echo "== $scenario, stent and $peer"; cat "$report"; echo; } >&2
		line "$scenario" "$peer" "$(cell 'CPU per (message|session)' "$report")" "$(cell 'per second' "$report")" \
			"$(cell 'latency p50' "$report")" "$(cell 'latency p99' "$report")" "$(cell 'memory per connection' "$report")"
	done
done
