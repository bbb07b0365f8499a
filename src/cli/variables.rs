//! Variables that were probably meant to be settings.

use forkpool::Setting;

/// Those that the binary reads besides the settings, and those that it sets.
const OTHERS: [&str; 7] = ["QUIET", "VERBOSE", "CHECK", "LOG_FORMAT", "FD", "WORKER_ID", "UNIQUE_ID"];

/// How alike two names must be, of 1.
const ALIKE: f64 = 0.85;

/// What to say about variables with our prefix that are no settings, but almost are.
pub(crate) fn misspelt(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> = forkpool::settings().map(Setting::variable).collect();
    let known = known.iter().filter_map(|name| name.strip_prefix("FORKPOOL_")).chain(OTHERS);
    let known: Vec<&str> = known.collect();
    let meant = |name: &str| {
        let suffix = name.strip_prefix("FORKPOOL_").filter(|suffix| !known.contains(suffix))?;
        let likely = known.iter().map(|known| (strsim::jaro(suffix, known), *known));
        let (likeness, known) = likely.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        (likeness > ALIKE).then(|| format!("{name} is no setting and is ignored; did you mean FORKPOOL_{known}?"))
    };
    names.filter_map(|name| meant(&name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_and_the_rest_is_not() {
        let names = ["FORKPOOL_WORKRES", "FORKPOOL_WORKERS", "FORKPOOL_FD", "FORKPOOL_TESTS", "FORKPOOL_X", "WORKRES"];
        let found = misspelt(names.into_iter().map(str::to_owned));
        assert_eq!(found, ["FORKPOOL_WORKRES is no setting and is ignored; did you mean FORKPOOL_WORKERS?"]);
    }
}
