//! The section `[rounds]`: when a round closes, and whom it lets in.

use serde::Deserialize;
use toml::Spanned;
use unsaid_protocol::RoundPolicy;

use super::{
    document::Fault,
    number::{Clients, Count, DeadlineMs},
};
use crate::round::Chance;

/// The section as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoundsSection {
    pub(super) min_clients: Spanned<Clients>,
    pub(super) target_clients: Spanned<Clients>,
    deadline_ms: DeadlineMs,
    invited_clients: Option<Spanned<Clients>>,
    selection: Option<Spanned<Selection>>,
    limit: Option<Count>,
}

/// Who of those that ask is let in.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table: { type = \"first-come\" }, or another selection with what it needs"
)]
enum Selection {
    /// Whoever comes first.
    FirstCome {},
    /// Who is drawn.
    Chance { probability: f64 },
}

impl RoundsSection {
    pub(super) fn policy(&self) -> RoundPolicy {
        RoundPolicy {
            min_clients: self.min_clients.get_ref().get(),
            target_clients: self.target_clients.get_ref().get(),
            deadline_ms: self.deadline_ms.get(),
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit.map(|limit| limit.get().into())
    }

    /// How many a span lets in at most.
    pub(super) fn invited(&self, is_asynchronous: bool) -> Result<Option<u32>, Fault> {
        let Some(invited) = &self.invited_clients else {
            return Ok(None);
        };
        let (number, target) = (invited.get_ref().get(), self.target_clients.get_ref().get());
        if number < target {
            let message = format!("{number} is below target_clients, {target}: no round would reach it");
            return Err(Fault::at(invited.span(), message));
        }
        if is_asynchronous {
            let message = "asynchronous rounds take whoever comes: leave it out";
            return Err(Fault::at(invited.span(), message));
        }
        Ok(Some(number))
    }

    /// With which chance a span lets in who asks.
    pub(super) fn chance(&self, is_asynchronous: bool) -> Result<Option<Chance>, Fault> {
        let Some(selection) = &self.selection else {
            return Ok(None);
        };
        let Selection::Chance { probability } = *selection.get_ref() else {
            return Ok(None);
        };
        let chance = Chance::new(probability).ok_or_else(|| {
            let message = format!("{probability:?} is not a number from {:?} to 1", Chance::LEAST);
            Fault::of("rounds.selection.probability".into(), selection.span(), message)
        })?;
        if is_asynchronous {
            let message =
                "asynchronous rounds take whoever comes, and have no span to draw for: leave it out";
            return Err(Fault::at(selection.span(), message));
        }
        Ok(Some(chance))
    }
}
