"""Checks what `microfaas bench NAME --json` printed: one object, with every promised key, each a number.

usage: check_bench.py NAME FILE
"""

import json
import sys

KEYS = {
    "warm": (
        "pingpong_ns_p50 uds_rtt_ns_p50 iceoryx2_rtt_ns_p50 rtt_0_ns_p50 rtt_64_ns_p50 rtt_64_ns_p99 "
        "rtt_64_ns_p999 rtt_1024_ns_p50 rtt_65536_ns_p50 calls_per_s_w1 calls_per_s_w8 calls_per_s_w64 "
        "idle_worker_cpu_pct wake_us_p50"
    ).split(),
    "preempt": (
        "tax_20us_pct tax_100us_pct tax_1ms_pct periodic_timer_tax_20us_pct call_overhead_ns timer_floor_us_p50 "
        "kill_late_us_p50 kill_late_us_p99 next_call_us_p50 mix_short_us_p99_share mix_short_us_p99_kill "
        "mix_short_us_p99_off mix_short_us_window_p99_share mix_none_short_us_p99_share"
    ).split(),
    "attacks": "cases passed failed worker_restarts".split(),
    "chaos": "accepted completed lost doubled wrong replace_ms_p50 replace_ms_p99".split(),
    "runaway": "honest_requests honest_failed honest_worst_ms runaway_answered_ms cpu_pct_after".split(),
}

# Differences of two measurements: noise may make them less than nothing.
MAY_BE_NEGATIVE = {"tax_20us_pct", "tax_100us_pct", "tax_1ms_pct", "call_overhead_ns"}


def problems(name: str, text: str) -> list[str]:
    """Everything that is wrong with the report `text` of the benchmark `name`."""
    try:
        report = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"not one JSON object: {error}"]
    if not isinstance(report, dict):
        return [f"not a JSON object but {type(report).__name__}"]
    found = []
    if report.get("bench") != name:
        found.append(f"bench is {report.get('bench')!r}, not {name!r}")
    for key, kind in (("machine", dict), ("on", list), ("n", dict), ("results", dict), ("failed", list)):
        if not isinstance(report.get(key), kind):
            found.append(f"{key} is missing or no {kind.__name__}")
    results = report.get("results")
    for key in KEYS[name] if isinstance(results, dict) else ():
        value = results.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            found.append(f"results.{key} is {value!r}, not a number")
        elif value < 0 and key not in MAY_BE_NEGATIVE:
            found.append(f"results.{key} is {value}, below zero")
    return found


def main() -> int:
    name, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        found = problems(name, file.read())
    for problem in found:
        print(f"bench {name}: {problem}", file=sys.stderr)
    if not found:
        print(f"bench {name}: {len(KEYS[name])} keys present")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
