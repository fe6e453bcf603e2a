#!/usr/bin/env bash
# All that only a CUDA card can show, in some ten minutes of it: tests, speed, training, certified photos.
#
#   OUT=results DATA=DATA PACKS="photos.bin labelled.bin" benchmarks/on_a_card.sh [tests speed training certified]
#
# DATA is the data folder of CONTRIBUTING.md's benchmarks, PACKS what `smoothapi denoiser pack` wrote,
# SURROGATES (optional) what --surrogate takes, separated by spaces. PYTHON is the interpreter. Each step
# has a limit of its own, prints as it goes, and leaves its figures in OUT: a card that is lent for a
# quarter of an hour may be gone at any time. Rehearse with DEVICE=cpu MINUTES=0.1.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} MINUTES=${MINUTES:-4}
OUT=${OUT:?the folder for the results} DATA=${DATA:?the data folder}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/adapters:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"

step() { # name, seconds, command
    echo "== $1, $(date +%T)"
    timeout "$2" "${@:3}" > "$OUT/$1.log" 2>&1
    echo "exit $?"
    tail -n 25 "$OUT/$1.log"
}

for what in "${@:-tests}"; do
    case $what in
        tests) step tests 150 "$PYTHON" -m pytest -m gpu tests/unit/denoise -q -s -p no:cacheprovider ;;
        speed)
            step speed 150 "$PYTHON" benchmarks/denoiser_speed.py --device "$DEVICE" --json "$OUT/speed.json"
            step training_speed 120 "$PYTHON" benchmarks/denoiser_training.py --device "$DEVICE" \
                --network large --seconds 12 --json "$OUT/training_speed.json"
            ;;
        training)
            options=()
            for pack in ${PACKS:?the packs of photos}; do options+=(--data "$pack"); done
            for surrogate in ${SURROGATES:-}; do options+=(--surrogate "$surrogate"); done
            [ -n "${SURROGATES:-}" ] && options+=(--objective both --stability-weight 0.01 --feature-weight 0.5 --labels-sigma 0.5)
            step training "$("$PYTHON" -c "print(round($MINUTES * 60 + 120))")" \
                "$PYTHON" -m smoothapi denoiser train --device "$DEVICE" --photos-on device "${options[@]}" \
                --start smoothapi/denoise/weights/unet-2.0.safetensors --crop 224 --batch 128 --upright \
                --focus 0.12 0.6 --focus-share 0.75 --learning-rate 1e-3 --hold 0.3 --warmup 100 --clip 2 \
                --ema 0.998 --minutes "$MINUTES" --out "$OUT/train"
            rm -f "$OUT/train/checkpoint.safetensors"
            ;;
        certified)
            step certified 200 "$PYTHON" -W ignore benchmarks/certified_fraction.py "$DATA" --device "$DEVICE" \
                --cache "$OUT/votes" --json "$OUT/certified.json"
            ;;
        *) echo "Unknown step '$what'. Use tests, speed, training, certified." >&2; exit 2 ;;
    esac
done
