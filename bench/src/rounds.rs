//! The order of an interleaved run.

use fastrand::Rng;

/// Who runs when: for each round the indices of those that run in it, in random order. The subject `i` runs in `runs[i]`
/// rounds: in each of them, or in as many drawn from them if others run more often.
#[must_use]
pub fn schedule(runs: &[usize], random: &mut Rng) -> Vec<Vec<usize>> {
    let mut rounds = vec![Vec::with_capacity(runs.len()); runs.iter().copied().max().unwrap_or(0)];
    for (subject, &wanted) in runs.iter().enumerate() {
        let mut drawn: Vec<usize> = (0..rounds.len()).collect();
        random.shuffle(&mut drawn);
        for &round in drawn.iter().take(wanted) {
            rounds[round].push(subject);
        }
    }
    rounds.iter_mut().for_each(|round| random.shuffle(round));
    rounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn everyone_runs_as_often_as_wanted_and_once_a_round(
            runs in proptest::collection::vec(0_usize..20, 0..8), seed: u64,
        ) {
            let rounds = schedule(&runs, &mut Rng::with_seed(seed));
            prop_assert_eq!(rounds.len(), runs.iter().copied().max().unwrap_or(0));
            for (subject, &wanted) in runs.iter().enumerate() {
                let times = |round: &Vec<usize>| round.iter().filter(|&&other| other == subject).count();
                prop_assert!(rounds.iter().all(|round| times(round) <= 1));
                prop_assert_eq!(rounds.iter().map(times).sum::<usize>(), wanted);
            }
        }
    }

    #[test]
    fn rounds_differ_in_order() {
        let rounds = schedule(&[20; 5], &mut Rng::with_seed(1));
        assert!(rounds.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
