//! How many files, connections among them, this process may have open.

/// What the store, the listener and the rest have open beside connections, at the most.
const OTHERS: u64 = 64;

/// Raises the process's own limit to what the system allows it, and returns the limit that holds then; none where there is none,
/// or none is known.
#[cfg(unix)]
pub fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: maximum,
        maximum,
    };
    // Refused or not, what holds is asked for again.
    let _ = setrlimit(Resource::Nofile, highest);
    getrlimit(Resource::Nofile).current
}

/// Nothing is known of it here.
#[cfg(not(unix))]
pub fn raise() -> Option<u64> {
    None
}

/// What to say where `limit` is too low for as many `connections`.
pub fn warning(limit: Option<u64>, connections: usize) -> Option<String> {
    let limit = limit.filter(|limit| limit.saturating_sub(OTHERS) < connections as u64)?;
    Some(format!(
        "this process may have {limit} files open, which is too few for {connections} connections: raise the limit (ulimit -n, LimitNOFILE), \
         or lower --max-connections"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_for_the_connections_is_told() {
        assert_eq!(warning(Some(4_160), 4_096), None);
        assert_eq!(warning(None, 4_096), None);
        let text = warning(Some(1_024), 4_096).unwrap();
        assert!(
            text.contains("1024 files") && text.contains("--max-connections"),
            "{text}"
        );
        assert!(warning(Some(4_159), 4_096).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_is_as_high_as_the_system_allows() {
        let limit = raise();
        assert_eq!(
            limit,
            rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
        );
    }
}
