#!/bin/sh
# Adapter for `cargo xtask bench --peer`: another fairlead-node, such as an older build or one with
# other options. The contract of adapters is in benches/README.md.
#
# usage: fairlead.sh [PROGRAM [OPTION-OF-fairlead-node-run ...]]
# Without PROGRAM it is $FAIRLEAD_NODE_BIN.
set -eu

if [ $# -gt 0 ]; then
    program=$1
    shift
else
    program=${FAIRLEAD_NODE_BIN:?name the fairlead-node to run}
fi

"$program" run --node-name "$BENCH_NODE" --local-config "$BENCH_CONFIG" --local-ca "$BENCH_CA" \
    --run-dir "$BENCH_STATE" --bpf-dir "/sys/fs/bpf/${BENCH_NETNS##*/}" --log-format json "$@" \
    >"$BENCH_STATE/log" &
proxy=$!
trap 'kill "$proxy"' TERM

until curl --silent --fail --output /dev/null http://127.0.0.1:15021/healthz/ready; do
    kill -0 "$proxy" # Ends this script if the proxy has ended.
    sleep 0.01
done
while read -r node name namespace account _ _ netns; do
    if [ "$node" = "$BENCH_NODE" ]; then
        "$program" pod add --run-dir "$BENCH_STATE" --namespace "$namespace" --name "$name" \
            --service-account "$account" --netns "$netns" >&2
    fi
done <"$BENCH_PODS"

echo "ready $proxy"
# The signal ends the first wait; the second one is for the proxy, which drains.
wait "$proxy" || wait "$proxy"
