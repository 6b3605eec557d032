//! Which numbered slots may be taken. The unique index makes two takers of one number impossible; this makes the numbers
//! on offer few enough, also while a limit was just lowered.

use std::collections::BTreeSet;

/// Slots numbered below the answer may be taken. It is `limit`, unless calls still hold numbers from before the limit was lowered.
///
/// The answer `b` satisfies `b + |used >= b| <= limit`. Takers only ever use numbers below their bound, and numbers above it
/// only become fewer, so at no instant are more than `limit` held, however stale the view of each taker is.
#[must_use]
pub fn safe_bound(limit: u32, used: &BTreeSet<u32>) -> u32 {
    let mut bound = limit;
    while bound > 0 {
        let above = u32::try_from(used.range(bound..).count()).unwrap_or(u32::MAX);
        if bound.saturating_add(above) <= limit {
            return bound;
        }
        bound -= 1;
    }
    0
}

/// The numbers of `scope` among the taken slots, e.g. those of `client/<id>` among `client/<id>/0`, `global/7`.
#[must_use]
pub fn numbers_of(scope: &str, taken: &BTreeSet<String>) -> BTreeSet<u32> {
    let prefix = format!("{scope}/");
    taken
        .range(prefix.clone()..)
        .take_while(|slot| slot.starts_with(&prefix))
        .filter_map(|slot| slot[prefix.len()..].parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ordinary_limit_offers_all_its_numbers() {
        assert_eq!(safe_bound(5, &BTreeSet::from([0, 3])), 5);
        assert_eq!(safe_bound(5, &BTreeSet::from([3, 4, 7, 8, 9])), 0);
        assert_eq!(safe_bound(5, &BTreeSet::from([7, 8])), 3);
    }

    #[test]
    fn scopes_do_not_mix() {
        let taken: BTreeSet<String> = ["client/a/1", "client/ab/2", "global/1", "client/a/10"]
            .map(str::to_owned)
            .into();
        assert_eq!(numbers_of("client/a", &taken), BTreeSet::from([1, 10]));
        assert_eq!(numbers_of("client", &taken), BTreeSet::new());
    }

    /// One step of many takers with views of different age.
    #[derive(Debug, Clone)]
    enum Step {
        Look(usize),
        Take(usize, usize),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..4).prop_map(Step::Look),
            (0usize..4, 0usize..16).prop_map(|(taker, pick)| Step::Take(taker, pick)),
            (0usize..16).prop_map(Step::End),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_stale_takers_exceeds_a_lowered_limit(
            held in proptest::collection::btree_set(0u32..12, 0..12), limit in 0u32..12, steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut used = held.clone();
            let mut views: Vec<BTreeSet<u32>> = vec![held.clone(); 4];
            let allowed = usize::try_from(limit).unwrap().max(held.len());
            for step in steps {
                match step {
                    Step::Look(taker) => views[taker] = used.clone(),
                    Step::Take(taker, pick) => {
                        let bound = safe_bound(limit, &views[taker]);
                        let free: Vec<u32> = (0..bound).filter(|number| !views[taker].contains(number)).collect();
                        if !free.is_empty() {
                            used.insert(free[pick % free.len()]);
                        }
                    }
                    Step::End(pick) => {
                        if let Some(number) = used.iter().nth(pick).copied() {
                            used.remove(&number);
                        }
                    }
                }
                prop_assert!(used.len() <= allowed, "{} held, {limit} allowed", used.len());
            }
        }
    }
}
