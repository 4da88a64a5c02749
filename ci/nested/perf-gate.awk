# The table and the verdict of ci/perf-gate. Lines: `SUBJECT TASK OPERATIONS NANOSECONDS` with the line of instructions.rs
# behind it, and `metric SUBJECT NAME UNIT VALUE`. The subjects are base, head, and base again; `first` is not judged. Of
# several lines of one task, the least counts.
function put(subject, name, unit, number) {
    if (!(name in units)) { names[++count] = name; units[name] = unit }
    if (have[subject, name]++ && value[subject, name] <= number) return 0
    value[subject, name] = number
    return 1
}
$1 == "metric" && NF == 5 { put($2, $3, $4, $5); next }
$1 == "first" { next }
NF != 12 { print "FAIL perf-gate: a line that says nothing: " $0; failed = 1; next }
{
    n = $3
    if (!put($1, $2, "instr", ($5 + $6 + $7 + $8 + $9 + $10) / n)) next
    part[$1, $2, "vmm"] = $5 / n
    part[$1, $2, "host"] = ($6 + $7) / n
    part[$1, $2, "guest"] = ($8 + $9) / n
    part[$1, $2, "copied"] = $10 / n
    part[$1, $2, "exits"] = $11 / n
    part[$1, $2, "calls"] = $12 / n
}
END {
    format = "%-24s %-6s %14s %14s %9s %9s  %s\n"
    printf format, "metric", "unit", "base", "head", "change", "noise", ""
    for (i = 1; i <= count; i++) judge(names[i], units[names[i]])
    if (!count) { print "FAIL perf-gate: nothing was measured"; failed = 1 }
    exit failed
}
function judge(name, unit,    base, again, head, change, noise, most, verdict) {
    if (!have["base", name] || !have["head", name] || !have["again", name]) {
        print "FAIL perf-gate: " name ": not measured of each"
        failed = 1
        return
    }
    base = value["base", name]; again = value["again", name]; head = value["head", name]
    most = base > again ? base : again
    # A phase by itself is too short for a limit in per cent: it names the culprit, and its sum is judged.
    if (name ~ /:/) verdict = ""
    else if (unit == "KiB") verdict = head > most + 16 ? "worse" : ""
    else verdict = head > most * 1.01 ? "worse" : ""
    change = unit == "KiB" ? sprintf("%+d", head - base) : percent(head, base)
    noise = unit == "KiB" ? sprintf("%+d", again - base) : percent(again, base)
    printf format, name, unit, whole(base), whole(head), change, noise, verdict
    if (verdict) {
        printf "FAIL perf-gate: %s: %s %s instead of %s%s\n", name, whole(head), unit, whole(most), culprit(name)
        failed = 1
    }
}
# What has grown most.
function culprit(name,    i, n, parts, grown, most, which) {
    if (name == "start") {
        for (i = 1; i <= count; i++) if (names[i] ~ /^start:/) {
            grown = value["head", names[i]] - value["base", names[i]]
            if (grown > most) { most = grown; which = substr(names[i], 7) }
        }
        return which ? sprintf("; phase %s: %+d ns", which, most) : ""
    }
    n = split("vmm host guest copied", parts, " ")
    for (i = 1; i <= n; i++) {
        grown = part["head", name, parts[i]] - part["base", name, parts[i]]
        if (grown > most) { most = grown; which = parts[i] }
    }
    if (!which) return ""
    return sprintf("; most of it %s: %+d; exits %.2f for %.2f, system calls %.2f for %.2f", which, most,
        part["head", name, "exits"], part["base", name, "exits"], part["head", name, "calls"], part["base", name, "calls"])
}
function percent(a, b) { return b ? sprintf("%+.2f %%", 100 * (a / b - 1)) : "" }
function whole(number) { return sprintf("%.0f", number) }
