#!/usr/bin/env bash
# Runs the tests on a busy machine, to find those whose result depends on timing.
#
#   scripts/stress_tests.sh [-r RUNS] [-p RUNS] [-w WORKERS] [-o FOLDER] [PYTEST ARGUMENT ...]
#
#   -r RUNS     runs beside two busy processes (default 5)
#   -p RUNS     runs with every process on one core (default 1; needs `taskset`)
#   -w WORKERS  pytest-xdist workers of the busy runs (default 3, as in `make test`)
#   -o FOLDER   where each run's log goes (default: a new folder below $TMPDIR)
#
# The other arguments go to pytest: paths, `-k`, `-x`. Without any, the whole suite runs.
# Each run has its own random order; `--randomly-seed=SEED`, with the seed from the run's log, repeats
# it. Prints the failed tests of each run. The exit status is 1 if a run failed, 2 for wrong usage.
#
#   scripts/stress_tests.sh -r 2 -p 0 tests/runtime
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

runs=5 pinned=1 workers=3 logs=
while getopts "r:p:w:o:" option; do
    case $option in
        r) runs=$OPTARG ;;
        p) pinned=$OPTARG ;;
        w) workers=$OPTARG ;;
        o) logs=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
for number in "$runs" "$pinned" "$workers"; do
    [[ $number =~ ^[0-9]+$ ]] || usage
done
if ((pinned > 0)) && ! command -v taskset > /dev/null; then
    echo "taskset is missing: no run on one core"
    pinned=0
fi
logs=${logs:-$(mktemp -d -t lmx-stress.XXXXXX)}
mkdir -p "$logs"

MAX_RUN_S=3600 # also what ends the busy processes if this script is killed
busy=()
stop_busy() {
    ((${#busy[@]})) && kill "${busy[@]}" 2> /dev/null && wait "${busy[@]}" 2> /dev/null
    busy=()
}
trap stop_busy EXIT
trap 'exit 130' INT TERM

failed=0
# report NAME STATUS: which tests failed in this run.
report() {
    local log=$logs/$1.log
    # Also of a run that pytest-xdist could not end, and so did not sum up.
    grep -aoE '^(\[gw[0-9]+\] \[ *[0-9]+%\] )?(FAILED|ERROR) [^ ]+' "$log" \
        | sed -E "s/^\[gw[0-9]+\] \[ *[0-9]+%\] //; s/^/$1: /" | sort -u
    if (($2 == 0)); then
        echo "$1: passed: $(tail -n 1 "$log")"
    else
        echo "$1: exit status $2: $(tail -n 1 "$log") ($log)"
        failed=1
    fi
}

python=.venv/bin/python
# One test that hangs ends its pytest-xdist worker, and may end the run: it must not be a slow one.
arguments=(-m pytest -v -rfE --dist loadfile --timeout 600)
for ((run = 1; run <= runs; run++)); do
    for _ in 1 2; do
        timeout "$MAX_RUN_S" "$BASH" -c 'while :; do :; done' &
        busy+=($!)
    done
    timeout --foreground "$MAX_RUN_S" "$python" "${arguments[@]}" -n "$workers" "$@" > "$logs/busy-$run.log" 2>&1
    status=$?
    stop_busy
    report "busy-$run" "$status"
done
for ((run = 1; run <= pinned; run++)); do
    timeout --foreground "$MAX_RUN_S" taskset -c 0 "$python" "${arguments[@]}" -n 1 "$@" \
        > "$logs/pinned-$run.log" 2>&1
    report "pinned-$run" $?
done
exit "$failed"
