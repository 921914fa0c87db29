#!/bin/sh
# Builds, checks and times every model of this kit on the board that the kit was made for, and writes result.json.
#
# Needs a POSIX shell with awk, od and sha256sum, and what the kit's runtime needs: trtexec for TensorRT; python3 with
# numpy and onnxruntime for ONNX Runtime (PYTHON names another interpreter). Writes only inside its own folder.
# Exit codes: 0 all models are measured, 1 a model failed (result.json says which and why) or the result could not
# be written, 2 wrong options, 3 a tool is missing, 6 this is not the board that was promised, 130 interrupted.
set -u
LC_ALL=C # a decimal point is a point
export LC_ALL
TAB=$(printf '\t')

WARM_UP_MS=500
DURATION_S=10
ITERATIONS=200

usage() {
    cat <<'END'
usage: ./run_on_board.sh [--only MODEL[,MODEL]] [--anyway] [--keep-engines] [--root DIR] [--help]

  --only          measure only these, such as student.fp16,student.int8
  --anyway        go on where the board is not what the kit was made for; the result says so
  --keep-engines  leave the built engines in engines/
  --root DIR      read system files and trtexec from DIR, for tests; the result is marked as simulated
END
}

main() {
    only='' anyway=no keep_engines=no root='' simulated=false
    while [ $# -gt 0 ]; do
        case $1 in
        --only | --root)
            [ $# -gt 1 ] || refuse 2 "$1 was given no value." "It takes one." "Run ./run_on_board.sh --help."
            case $1 in --only) only=$2 ;; --root) root=$2 simulated=true ;; esac
            shift
            ;;
        --anyway) anyway=yes ;;
        --keep-engines) keep_engines=yes ;;
        --help) usage && exit 0 ;;
        *) refuse 2 "Unknown option '$1'." "The options are --only, --anyway, --keep-engines, --root and --help." \
            "Run ./run_on_board.sh --help." ;;
        esac
        shift
    done
    if [ -n "$root" ]; then
        root=$(CDPATH='' cd -- "$root" && pwd) ||
            refuse 2 "--root names no folder." "A folder that looks like a board's / was expected." "Check the path."
    fi
    CDPATH='' cd -- "$(dirname -- "$0")" || exit 1
    kit=$(pwd)

    work=$kit/work child=''
    trap 'clean_up' EXIT
    trap 'exit 130' HUP INT TERM
    rm -rf "$work" result.json .tmp-result.json
    mkdir -p "$work" logs ||
        refuse 1 "No folder can be made in $kit." "A writable folder was expected." "Free space, or move the kit."
    TMPDIR=$work CUDA_CACHE_PATH=$work/cuda # nothing is left in /tmp or in the home folder
    export TMPDIR CUDA_CACHE_PATH

    started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    runtime=$(plan runtime 2)
    grep "^model$TAB" plan.tsv >"$work/models"
    check_only
    read_board
    mismatches=''
    check_board
    "find_$runtime"

    models='' failures=0
    while IFS="$TAB" read -r _ name precision file sha256 reference tolerance flags <&3; do
        run_model
    done 3<"$work/models"
    write_result
    [ "$failures" -eq 0 ]
}

# ---- the board ------------------------------------------------------------------------------------------------------

read_board() {
    model=$({ tr -d '\000' <"$root/proc/device-tree/model"; } 2>/dev/null)
    cpu=$(sed -n 's/^model name[[:space:]]*: //p' "$root/proc/cpuinfo" 2>/dev/null | head -n 1)
    os=$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$root/etc/os-release" 2>/dev/null)
    architecture=$(uname -m)
    if is_emulated; then mark_emulated; fi
    # "# R36 (release), REVISION: 4.3, GCID: ..." is L4T 36.4.3.
    tegra=$root/etc/nv_tegra_release
    l4t=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\),.*/\1.\2/p' "$tegra" 2>/dev/null)
    # The package that brings JetPack's parts knows best, but many systems are flashed without it.
    # shellcheck disable=SC2016  # dpkg-query's variable, not ours
    jetpack=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' nvidia-jetpack 2>/dev/null)
    jetpack=${jetpack%%[!0-9.]*}
    jetpack=${jetpack:-$(jetpack_of "$l4t")}
    power_mode=''
    if nvpmodel=$(find_tool nvpmodel /usr/sbin); then
        power_mode=$("$nvpmodel" -q 2>/dev/null | sed -n 's/^NV Power Mode: //p' | head -n 1)
    fi
    read_clocks
}

is_emulated() { # an emulator of programs answers for another processor, but most of what they see is this machine's own
    # This program's file, as another program sees it.
    case $(readlink "/proc/$$/exe" 2>/dev/null) in */qemu-*) return 0 ;; esac
    case $architecture in
    aarch64* | arm*) foreign='^(flags|vendor_id)' ;;
    x86_64 | i?86) foreign='^CPU implementer' ;;
    *) return 1 ;;
    esac
    grep -Eq "$foreign" "$root/proc/cpuinfo" 2>/dev/null
}

mark_emulated() {
    simulated=true
    say "warning: programs run in an emulator here, so the result is marked as simulated."
}

jetpack_of() { # L4T version -> JetPack version, nothing where this kit does not know it
    case $1 in
    32.6.*) echo 4.6 ;;
    32.7.*) echo "4.6.${1#32.7.}" ;;
    35.1 | 35.1.*) echo 5.0.2 ;;
    35.2.*) echo 5.1 ;;
    35.3.*) echo 5.1.1 ;;
    35.4.*) echo 5.1.2 ;;
    35.[56].*) echo 5.1.3 ;;
    36.3 | 36.3.*) echo 6.0 ;;
    36.4 | 36.4.0) echo 6.1 ;;
    36.4.3) echo 6.2 ;;
    36.4.[4-9]) echo 6.2.1 ;;
    36.5 | 36.5.*) echo 6.2.2 ;;
    38.2 | 38.2.*) echo 7.0 ;;
    38.4 | 38.4.*) echo 7.1 ;;
    39.2 | 39.2.0) echo 7.2 ;;
    39.2.1) echo 7.2.1 ;;
    esac
}

family_of() { # the module that a profile's title or a device tree names: they share the chip, not the speed
    case $1 in
    *Thor*) echo Thor ;;
    *"AGX Orin"*) echo "AGX Orin" ;;
    *"Orin NX"*) echo "Orin NX" ;;
    *"Orin Nano"*) echo "Orin Nano" ;;
    *"Xavier NX"*) echo "Xavier NX" ;;
    *Xavier* | Jetson-AGX) echo "AGX Xavier" ;;
    *TX2* | quill) echo TX2 ;;
    *"Jetson Nano"*) echo Nano ;;
    esac
}

read_clocks() { # MHz; jetson_clocks makes the lowest and the highest equal
    clocks='' clocks_locked=null
    for folder in "$root"/sys/devices/system/cpu/cpu0/cpufreq "$root"/sys/class/devfreq/*gpu* \
        "$root"/sys/class/devfreq/*.gv11b "$root"/sys/class/devfreq/*.gp10b "$root"/sys/class/devfreq/*.ga10b; do
        case $folder in
        */cpufreq) unit=cpu prefix=scaling_ per_mhz=1000 ;;
        *) unit=gpu prefix='' per_mhz=1000000 ;;
        esac
        for which in cur min max; do
            value=$(cat "$folder/${prefix}${which}_freq" 2>/dev/null) || continue 2
            mhz=$(awk -v value="$value" -v per="$per_mhz" 'BEGIN { printf "%.6g", value / per }')
            case $which in
            cur) clocks="$clocks, \"$unit\": $mhz" ;;
            min) lowest=$mhz clocks="$clocks, \"${unit}_min\": $mhz" ;;
            max) clocks="$clocks, \"${unit}_max\": $mhz" ;;
            esac
        done
        [ "$lowest" = "$mhz" ] && clocks_locked=true || clocks_locked=false
    done
    clocks=${clocks#, }
}

check_board() {
    title=$(plan title 2)
    if [ "$(plan kind 2)" = jetson ]; then
        promised="JetPack $(plan jetpack 2) to $(plan jetpack 3)"
        if [ -z "$l4t" ]; then
            mismatch "${model:-This machine} has no /etc/nv_tegra_release, so it is no Jetson." \
                "The kit is for $title with $promised."
        elif [ -z "$jetpack" ]; then
            mismatch "The board runs L4T $l4t, whose JetPack this kit does not know." "The kit is for $promised."
        elif ! in_range "$jetpack" "$(plan jetpack 2)" "$(plan jetpack 3)"; then
            mismatch "The board runs JetPack $jetpack (L4T $l4t)." "The kit is for $promised."
        fi
        wanted=$(family_of "$title") found=$(family_of "$model")
        if [ -n "$wanted" ] && [ -n "$found" ] && [ "$wanted" != "$found" ]; then
            mismatch "The board is a $model." "The kit is for $title."
        fi
    fi
}

in_range() { # VERSION MIN MAX, both included; a MAX of 4.6 includes every 4.6.x
    awk -v version="$1" -v low="$2" -v high="$3" 'BEGIN {
        split(version, v, "."); num_low = split(low, l, "."); num_high = split(high, h, ".")
        for (i = 1; i <= num_low; i++) { if (v[i] + 0 < l[i] + 0) exit 1; if (v[i] + 0 > l[i] + 0) break }
        for (i = 1; i <= num_high; i++) { if (v[i] + 0 > h[i] + 0) exit 1; if (v[i] + 0 < h[i] + 0) break }
    }'
}

mismatch() { # RECEIVED EXPECTED: a promise of the profile that this board does not keep
    [ "$anyway" = yes ] ||
        refuse 6 "$1" "$2" "Run it on that device, make a kit for this one, or add --anyway to measure regardless."
    say "warning: $1 $2"
    mismatches="$mismatches, $(json "$1 $2")"
}

# ---- models ---------------------------------------------------------------------------------------------------------

check_only() { # a typing error would otherwise measure nothing and call it a success
    for label in $(printf '%s' "$only" | tr ',' ' '); do
        awk -F"$TAB" -v label="$label" '$2 "." $3 == label { found = 1 } END { exit !found }' "$work/models" ||
            refuse 2 "--only names '$label'." \
                "The kit holds$(awk -F"$TAB" '{ printf " %s.%s", $2, $3 }' "$work/models")." "Use one of these names."
    done
}

run_model() { # $name $precision $file $sha256 $reference $tolerance $flags -> one object, appended to $models
    label=$name.$precision status=ok reason='' warnings=''
    parity=null build_s=null engine_bytes=null latency=null
    log=$kit/logs/$label.log engine=$work/$label.plan
    found_sha256=$(sha256 "$file")
    case ",$only," in
    ,, | *",$label,"*)
        if [ "$found_sha256" != "$sha256" ]; then
            found_sha256=${found_sha256:-$sha256}
            fail "The file is missing or damaged: its SHA-256 is not the one in the kit's plan."
        else
            "measure_with_$runtime"
        fi
        ;;
    *) status=skipped reason="It was not among those asked for with --only." ;;
    esac
    case $status in
    ok) say "$label: done" ;;
    failed) failures=$((failures + 1)) && say "$label: failed. $reason" ;;
    esac
    models="$models,
    {\"name\": \"$name\", \"precision\": \"$precision\", \"file\": $(json "$file"), \"sha256\": \"$found_sha256\",
     \"status\": \"$status\", \"reason\": $(json "$reason"), \"parity\": $parity, \"build_s\": $build_s,
     \"engine_bytes\": $engine_bytes, \"latency\": $latency, \"warnings\": [${warnings#, }]}"
}

fail() {
    status=failed reason=$1
    return 1
}

# ---- TensorRT -------------------------------------------------------------------------------------------------------

find_tensorrt() {
    trtexec=$(find_tool trtexec /usr/src/tensorrt/bin) ||
        refuse 3 "trtexec was found neither on the PATH nor in /usr/src/tensorrt/bin." \
            "It comes with TensorRT's samples, which JetPack installs." \
            "Run sudo apt-get install libnvinfer-bin, or add its folder to the PATH."
    # "[TensorRT v8502]" is 8.5.2 and "[TensorRT v100300]" is 10.3.0.
    version=$("$trtexec" --help 2>&1 </dev/null | sed -n 's/.*\[TensorRT v\([0-9.]*\)\].*/\1/p' | head -n 1 | awk '
        /\./ { print; next }
        length($0) == 4 { print int($0 / 1000) "." int($0 / 100) % 10 "." $0 % 100 }
        length($0) > 4 { print int($0 / 10000) "." int($0 / 100) % 100 "." $0 % 100 }')
    [ -n "$version" ] ||
        refuse 3 "$trtexec does not say its version." "A line with [TensorRT v...] was expected from trtexec --help." \
            "Check that trtexec runs: its libraries may be missing."
    in_range "$version" "$(plan tensorrt 2)" "$(plan tensorrt 3)" ||
        mismatch "The board has TensorRT $version." "The kit is for TensorRT $(plan tensorrt 2) to $(plan tensorrt 3)."
    gpu_checked=no
}

before() { ! in_range "$version" "$1" 999; } # whether this TensorRT is older than $1

measure_with_tensorrt() {
    build_engine && check_gpu && check_outputs && time_engine
    if [ "$keep_engines" = yes ] && [ -s "$engine" ]; then
        mkdir -p engines && mv "$engine" engines/
    fi
    rm -f "$engine" # the next one may need the space
}

build_engine() {
    say "$label: building the engine"
    set -- "--onnx=$file" "--saveEngine=$engine" "--timingCacheFile=$work/timing.cache"
    workspace=$(plan workspace_mib 2)
    if before 8.5; then set -- "$@" "--workspace=$workspace"; else set -- "$@" "--memPoolSize=workspace:$workspace"; fi
    if before 8.6; then set -- "$@" --buildOnly; else set -- "$@" --skipInference; fi
    if before 10; then
        # shellcheck disable=SC2046  # one word for each flag
        [ "$flags" = - ] || set -- "$@" $(printf '%s' "$flags" | tr ',' ' ')
    elif before 11; then
        set -- "$@" --stronglyTyped
    fi
    shape=$(plan shape 2)
    [ "$shape" = - ] || set -- "$@" "--minShapes=$shape" "--optShapes=$shape" "--maxShapes=$shape"
    from=$(date +%s)
    printf '' >"$log"
    trtexec_passes build "$@" || return
    build_s=$(($(date +%s) - from))
    engine_bytes=$(wc -c <"$engine" | tr -d ' ')
}

check_gpu() { # trtexec names the GPU only when it builds
    [ "$gpu_checked" = no ] || return 0
    gpu_checked=yes
    model=${model:-$(sed -n 's/.*Selected Device: //p' "$log" | head -n 1)}
    capability=$(sed -n 's/.*Compute Capability: \([0-9.]*\).*/\1/p' "$log" | head -n 1)
    promised=$(plan compute_capability 2)
    if [ "$promised" != - ] && [ -n "$capability" ] && [ "$capability" != "$promised" ]; then
        mismatch "The GPU has compute capability $capability." "The kit is for $(plan title 2), which has $promised."
    fi
}

check_outputs() {
    say "$label: checking the outputs"
    printf '' >"$work/values"
    call=0
    while [ "$call" -lt "$(plan calls 2)" ]; do
        set -- "--loadEngine=$engine" "--loadInputs=$(plan input 2):golden/image-$call.bin" \
            "--exportOutput=$work/output.json" --warmUp=0 --duration=0 --iterations=1
        [ "$shape" = - ] || set -- "$@" "--shapes=$shape"
        rm -f "$work/output.json"
        trtexec_passes "check of the outputs" "$@" || return
        sed -n 's/.*"values" : \[\(.*\)\].*/\1/p' "$work/output.json" | tr ',' '\n' >>"$work/values"
        call=$((call + 1))
    done
    verdict=$(compare "$reference" "$work/values") || {
        fail "$verdict"
        return
    }
    parity=$verdict
}

compare() { # REFERENCE VALUES -> the parity as JSON, or why it is no parity
    od -A n -v -t f4 "$1" | awk -v classes="$(plan classes 2)" -v tolerance="$tolerance" \
        -v pixels="$(plan pixels 2)" -v stride="$(plan pixels 3)" '
        {   # of a class map only every so many pixels are golden; without one, pixels and stride are 1
            for (i = 1; i <= NF; i++) {
                if (which == "golden") golden[n++] = $i
                else if (all++ % pixels % stride == 0) got[m++] = $i
            }
        }
        END {
            kept = int((pixels - 1) / stride) + 1
            if (n == 0 || n != m) { print "It gave " m + 0 " values, not " n + 0 "."; exit 1 }
            for (i = 0; i < n; i++) {
                if (got[i] !~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/) { print "It gave the value " got[i] "."; exit 1 }
                value = got[i] + 0; wanted = golden[i] + 0
                difference = value > wanted ? value - wanted : wanted - value
                size = wanted < 0 ? -wanted : wanted
                if (difference > max_abs) max_abs = difference
                if (size > scale) scale = size
                pixel = i % kept; class = int(i / kept) % classes
                if (class == 0) { best[pixel] = best_wanted[pixel] = i; num_pixels++ }
                if (value > got[best[pixel]] + 0) best[pixel] = i
                if (wanted > golden[best_wanted[pixel]] + 0) best_wanted[pixel] = i
                if (class == classes - 1 && best[pixel] == best_wanted[pixel]) agree++
            }
            if (max_abs > tolerance * scale) {
                printf "Its outputs differ from the golden ones by %.3g of the largest logit, more than %g.",
                    scale ? max_abs / scale : max_abs, tolerance
                exit 1
            }
            printf "{\"count\": %d, \"max_abs\": %.9g, \"max_rel\": %.9g, \"top1_agreement\": %.9g}",
                num_pixels / kept, max_abs, scale ? max_abs / scale : 0, agree / num_pixels
        }' which=golden - which=got "$2"
}

time_engine() {
    say "$label: timing, up to $DURATION_S s"
    set -- "--loadEngine=$engine" "--exportTimes=$work/times.json" "--warmUp=$WARM_UP_MS" "--duration=$DURATION_S" \
        "--iterations=$ITERATIONS" --percentile=99
    # From 11 on these are how trtexec times anyway.
    if before 11; then set -- "$@" --useCudaGraph --noDataTransfers --useSpinWait; fi
    [ "$shape" = - ] || set -- "$@" "--shapes=$shape"
    rm -f "$work/times.json"
    trtexec_passes timing "$@" || return
    median=$(sed -n 's/.*GPU Compute Time: .*median = \([0-9.e+-]*\) ms.*/\1/p' "$log" | tail -n 1)
    queries_per_s=$(sed -n 's/.*Throughput: \([0-9.e+-]*\) qps.*/\1/p' "$log" | tail -n 1)
    # TensorRT 8.2 writes the warm-up queries too; later ones leave them out. sort -n reads no exponents, nor has any
    # time of 0.1 us or more one.
    sed -n 's/.*"startComputeMs" : \([^,]*\),.*"computeMs" : \([^,]*\),.*/\1 \2/p' "$work/times.json" |
        awk -v from="$WARM_UP_MS" '$1 >= from { print $2 }' | sort -n >"$work/times"
    verdict=$(summarise "$work/times") || {
        fail "$verdict"
        return
    }
    latency=$verdict
    while IFS= read -r line; do warn "$line"; done <<END
$(sed -n 's/.*\[W\] \* \(GPU compute time is unstable.*\)/\1/p' "$log")
$(sed -n 's/.*\[W\] \* \(Throughput may be bound by.*\)/\1/p' "$log")
END
}

summarise() { # sorted times in ms -> the latency as JSON; quantiles interpolate between neighbours, as numpy's do
    awk -v median="${median:-0}" -v per_s="${queries_per_s:-0}" -v batch="$(plan batch 2)" '
        function quantile(q, position, below) {
            position = q * (n - 1); below = int(position)
            return t[below] + (position - below) * (t[below + 1 < n ? below + 1 : below] - t[below])
        }
        { t[n++] = $1; sum += $1 }
        END {
            if (n == 0 || per_s <= 0 || median <= 0) {
                print "trtexec reported no times that this kit can read."; exit 1
            }
            p50 = quantile(0.5)
            if (p50 > 1.02 * median || p50 < 0.98 * median) {
                print "trtexec logs a median of " median " ms, but its list of times has " p50 " ms."; exit 1
            }
            printf "{\"p50_ms\": %.6g, \"p90_ms\": %.6g, \"p99_ms\": %.6g, \"mean_ms\": %.6g, \"count\": %d, " \
                "\"batch_size\": %d, \"throughput_ips\": %.6g, \"what\": \"gpu compute\"}",
                p50, quantile(0.9), quantile(0.99), sum / n, n, batch, per_s * batch
        }' "$1"
}

trtexec_passes() { # STEP ARGUMENTS...; the log of the whole model grows
    step=$1 code=1
    shift
    run "$trtexec" "$@" >>"$log" 2>&1 && tail -n 5 "$log" | grep -q '&&&& PASSED' && return
    error=$(sed -n 's/^\[[^]]*\] \[E\] *//p' "$log" | grep . | head -n 1) # the first one is the cause
    if disk_is_full; then error="the disk is full"; fi
    error=${error:-$(tail -n 1 "$log")}
    fail "trtexec failed in the $step ($(ended)): ${error:-it printed nothing}"
}

# ---- ONNX Runtime ---------------------------------------------------------------------------------------------------

find_onnxruntime() {
    python=${PYTHON:-python3}
    found=$("$python" -c 'import platform, numpy, onnxruntime; print(onnxruntime.__version__, platform.machine())' \
        2>/dev/null) ||
        refuse 3 "$python with numpy and onnxruntime was not found." \
            "The kit's models run in ONNX Runtime, and its program needs both packages." \
            "Run python3 -m pip install onnxruntime numpy, or set PYTHON to an interpreter that has them."
    version=${found% *}
    # An interpreter for another processor than this one's runs in an emulator.
    if [ "${found#* }" != "$architecture" ]; then
        architecture=${found#* }
        mark_emulated
    fi
}

measure_with_onnxruntime() {
    say "$label: checking the outputs and timing, up to $DURATION_S s"
    run "$python" board_onnxruntime.py "$name" "$precision" "$DURATION_S" >"$log" 2>&1 || {
        fail "ONNX Runtime failed ($(ended)): $(tail -n 1 "$log")"
        return
    }
    parity=$(sed -n "s/^parity$TAB//p" "$log") latency=$(sed -n "s/^latency$TAB//p" "$log")
    while IFS= read -r line; do warn "$line"; done <<END
$(sed -n "s/^warning$TAB//p" "$log")
END
}

# ---- the result -----------------------------------------------------------------------------------------------------

write_result() {
    zeros=0000000000000000000000000000000000000000000000000000000000000000
    cat >.tmp-result.json <<END
{
  "schema_version": "1.0",
  "kit_sha256": "$(sha256 manifest.json)",
  "target": $(json "$(plan target 2)"),
  "simulated": $simulated,
  "mismatches": [${mismatches#, }],
  "started": "$started",
  "board": {
    "model": $(json "$model"),
    "jetpack": $(json "$jetpack"),
    "l4t": $(json "$l4t"),
    "os": $(json "${os:-unknown}"),
    "architecture": $(json "$architecture"),
    "cpu": $(json "$cpu"),
    "power_mode": $(json "$power_mode"),
    "clocks": {$clocks},
    "clocks_locked": $clocks_locked
  },
  "runtime": {"name": "$runtime", "version": $(json "$version")},
  "models": [${models#,}
  ],
  "digest": "$zeros"
}
END
    # The digest is of the file with zeros in its place.
    digest=$(sha256 .tmp-result.json)
    sed "s/\"digest\": \"$zeros\"/\"digest\": \"$digest\"/" .tmp-result.json >"$work/result.json"
    # On a full disk either file is cut off: only a whole one gets the name.
    if ! tail -n 1 "$work/result.json" | grep -q '^}$' || ! mv "$work/result.json" result.json; then
        refuse 1 "result.json could not be written in $kit." "A few kilobytes of free space were expected." \
            "Free some space and run this again."
    fi
    say "The result is in $kit/result.json"
}

json() { # TEXT -> a JSON string of printable ASCII, or null where nothing is left
    text=$(printf '%s\n' "$1" | tr -c '\040-\176\n' ' ' | tr '\n' ' ' | cut -c 1-1900 | sed 's/ *$//; s/["\\]/\\&/g')
    if [ -n "$text" ]; then printf '"%s"' "$text"; else printf null; fi
}

# ---- tools ----------------------------------------------------------------------------------------------------------

plan() { awk -F"$TAB" -v key="$1" -v field="$2" '$1 == key { print $field; exit }' plan.tsv; }

sha256() { sha256sum "$1" 2>/dev/null | cut -d ' ' -f 1; }

say() { printf '%s\n' "$1"; }

warn() { [ -z "$1" ] || warnings="$warnings, $(json "$1")"; }

find_tool() { # NAME FOLDER: the path of a tool, from under --root alone where that is given
    if [ -n "$root" ]; then
        for candidate in "$root$2/$1" "$root/usr/bin/$1"; do
            [ -x "$candidate" ] && printf '%s\n' "$candidate" && return
        done
        return 1
    fi
    command -v "$1" || { [ -x "$2/$1" ] && printf '%s\n' "$2/$1"; }
}

run() { # in the background, so that a signal stops it at once
    "$@" </dev/null &
    child=$!
    wait "$child"
    code=$?
    child=''
    return "$code"
}

ended() { # how the last run ended
    if [ "$code" -eq 137 ]; then printf 'killed, usually because memory ran out'; else printf 'exit code %s' "$code"; fi
}

disk_is_full() { # less than a MiB is free; a log that could not be written does not say so
    df -P -k "$work" | awk 'NR == 2 && $4 < 1024 { full = 1 } END { exit !full }'
}

clean_up() {
    [ -z "$child" ] || kill "$child" 2>/dev/null
    rm -rf "$work" .tmp-result.json
}

refuse() { # CODE RECEIVED EXPECTED ACTION
    printf '%s %s %s\n' "$2" "$3" "$4" >&2
    exit "$1"
}

main "$@"
