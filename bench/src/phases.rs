//! The phases of a start, from the marks that `mote run --timeline` leaves: each takes from the mark before it to its own.

use serde::Deserialize;

/// The phases, in the order in which a start goes through them.
pub const PHASES: [&str; 7] =
    ["exec", "kvm", "memory", "kernel_load", "devices", "first_instruction", "ready"];

/// Which of [`PHASES`] ends with which mark. Marks that come after READY belong to none.
const MARKS: [(&str, usize); 12] = [
    ("exec", 0),
    ("args", 0),
    ("kvm_open", 1),
    ("vm_created", 1),
    ("vcpu_created", 1),
    ("memory", 2),
    ("kernel_loaded", 3),
    ("devices", 4),
    ("first_run", 5),
    ("first_exit", 5),
    ("first_serial_byte", 6),
    ("guest_ready", 6),
];

/// What a phase is called in results, as a metric.
#[must_use]
pub fn metric(phase: &str) -> String {
    format!("phase_{phase}")
}

/// How long each of [`PHASES`] took, in ms; `None` if the guest was never ready.
///
/// Two threads prepare a machine, so marks are put in the order of their times: what happens beside something else takes
/// only as long as that waits for it.
#[must_use]
pub fn durations(timeline: &str) -> Option<[f64; PHASES.len()]> {
    #[derive(Deserialize)]
    struct Mark {
        phase: String,
        ns: u64,
    }

    let marks = timeline.lines().map(serde_json::from_str::<Mark>);
    let mut marks = marks.collect::<Result<Vec<_>, _>>().ok()?;
    marks.sort_by_key(|mark| mark.ns);
    let (mut durations, mut before, mut ready) = ([0.0; PHASES.len()], 0, false);
    for Mark { phase, ns } in marks {
        let Some(&(_, index)) = MARKS.iter().find(|(mark, _)| *mark == phase) else { continue };
        durations[index] += (ns - before) as f64 / 1e6;
        ready |= phase == "first_serial_byte";
        before = ns;
    }
    ready.then_some(durations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_the_whole() {
        let timeline = r#"{"phase":"exec","ns":1000000}
{"phase":"args","ns":1250000}
{"phase":"memory","ns":1500000}
{"phase":"kernel_loaded","ns":2000000}
{"phase":"vm_created","ns":4000000}
{"phase":"devices","ns":4500000}
{"phase":"first_exit","ns":5000000}
{"phase":"guest_ready","ns":5250000}
{"phase":"first_serial_byte","ns":5500000}
{"phase":"exit","ns":9000000}
"#;
        assert_eq!(durations(timeline), Some([1.25, 2.0, 0.25, 0.5, 0.5, 0.5, 0.5]));
    }

    #[test]
    fn a_start_that_came_to_nothing_has_no_phases() {
        assert_eq!(durations("{\"phase\":\"exec\",\"ns\":5}\n"), None);
        assert_eq!(durations("READY\n"), None);
        assert_eq!(durations(""), None);
    }
}
