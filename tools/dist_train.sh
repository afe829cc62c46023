#!/usr/bin/env bash
# Train on several processes of one machine: tools/dist_train.sh CONFIG NUM [options]
set -euo pipefail
CONFIG=$1
NUM=$2
exec torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$NUM" "$(dirname "$0")/train.py" "$CONFIG" \
    --launcher pytorch "${@:3}"
