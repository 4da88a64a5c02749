# The table of ci/io-cost, from lines `subject task operations nanoseconds`, each with its line of instructions.rs behind it.
BEGIN {
    print "instructions an operation; string: iterations of string instructions, which are in no other column"
    format = "%-19s %-12s %9s %9s %9s %9s %9s %9s %7s %7s  %s\n"
    printf format, "task", "subject", "total", "vmm", "host", "guest", "peer", "string", "exits", "calls",
        "mote / firecracker: total vmm exits calls"
}
NF != 12 { print "FAIL io-cost: a task without its counts: " $0; failed = 1; next }
{
    subject = $1; task = $2; n = $3; ns = $4
    value["vmm"] = $5 / n; peer = $6 / n; host = $7 / n; guest = ($8 + $9) / n; string = $10 / n
    value["exits"] = $11 / n; value["calls"] = $12 / n
    value["total"] = value["vmm"] + peer + host + guest
    # One instruction is one nanosecond: where the two are far apart, something waited, or the count is wrong.
    gap = (ns - n * (value["total"] + string)) / ns
    if (gap > 0.02 || gap < -0.02) {
        printf "FAIL io-cost: %s, %s: %.0f ns, of which %.1f %% were not counted\n", task, subject, ns, 100 * gap
        failed = 1
    }
    ratios = ""
    for (i = split("total vmm exits calls", names, " "); i > 0; i--) {
        name = names[i]
        if (subject == "firecracker") peers[task, name] = value[name]
        else if (peers[task, name] > 0) ratios = sprintf("%.3f ", value[name] / peers[task, name]) ratios
    }
    printf format, task, subject, r(value["total"]), r(value["vmm"]), r(host), r(guest), r(peer), r(string),
        sprintf("%.2f", value["exits"]), sprintf("%.2f", value["calls"]), ratios
}
END { exit failed }
function r(number) { return sprintf("%.0f", number) }
