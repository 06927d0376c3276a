//! Everything that can go wrong in a client, with the stable code that JavaScript sees.

use unsaid_document::Decimal;
use unsaid_engine::{DataError, EngineError};
use unsaid_privacy::{LedgerError, PrivacyError};
use unsaid_protocol::{DecodeError, ManifestError, Problem};

use crate::backend::is_of_gpu;

/// Why the client refused or stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An option makes no sense.
    #[error("{0}")]
    BadOptions(String),
    /// The relay did not answer, after all tries.
    #[error("the relay cannot be reached: {0}")]
    RelayUnreachable(String),
    /// The relay's manifest cannot be followed.
    #[error("the task's manifest cannot be followed: {0}")]
    BadManifest(String),
    /// The manifest's terms are weaker than the client's own floors.
    #[error("the task's terms are not good enough: {0}")]
    BelowFloor(String),
    /// The relay changed the manifest since the client agreed to it.
    #[error(
        "the task's manifest has changed since you agreed to it: open the task again to read the new one"
    )]
    ManifestChanged,
    /// The relay's model is not what its hash or the manifest says.
    #[error("the relay's model cannot be used: {0}")]
    BadModel(String),
    /// There are no local examples.
    #[error("there is no local data yet: add examples before taking part")]
    NoData,
    /// Examples that the task cannot take.
    #[error("{0}")]
    BadData(String),
    /// The next round would spend more than the person allows.
    #[error(
        "the next round would bring the privacy spent to ε = {}, above your limit of {}: raise the limit knowingly, or stop \
         here",
        Decimal(*would_be),
        Decimal(*limit)
    )]
    BudgetExhausted {
        /// ε after the round.
        would_be: f64,
        /// The limit.
        limit: f64,
    },
    /// As many rounds were paid for in the last 24 hours as the person allows.
    #[error("{limit} rounds were paid for in the last 24 hours, as many as you allow: go on later")]
    DailyLimit {
        /// The most in 24 hours.
        limit: u32,
    },
    /// Training gave something that is not a number; nothing was sent.
    #[error("training failed and nothing was sent: {0}")]
    NonFinite(String),
    /// WebGPU was asked for by name, and there is none, or it cannot do the work.
    #[error("{0}")]
    WebGpuUnavailable(String),
    /// The browser's storage failed or was denied. Without it no budget can be kept, so nothing is sent.
    #[error("the browser's storage cannot be used, so no privacy budget can be kept: {0}")]
    Storage(String),
    /// The browser gives no random numbers. Without them there is no noise, so nothing is sent.
    #[error("the browser gives no secure random numbers: {0}")]
    NoEntropy(String),
    /// The caller stopped it.
    #[error("stopped by the caller")]
    Aborted,
    /// The relay refused, and sending the same again cannot help.
    #[error("the relay refused: {}: {}", .0.title, .0.detail)]
    Refused(Problem),
    /// The session is taking part already.
    #[error("this client is taking part already")]
    Busy,
    /// A fault of this program.
    #[error("a fault of the client: {0}")]
    Internal(String),
}

impl ClientError {
    /// The code that JavaScript sees; it never changes its meaning.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadOptions(_) => "bad-options",
            Self::RelayUnreachable(_) => "relay-unreachable",
            Self::BadManifest(_) => "bad-manifest",
            Self::BelowFloor(_) => "manifest-below-floor",
            Self::ManifestChanged => "manifest-changed",
            Self::BadModel(_) => "bad-model",
            Self::NoData => "no-data",
            Self::BadData(_) => "bad-data",
            Self::BudgetExhausted { .. } => "budget-exhausted",
            Self::DailyLimit { .. } => "daily-limit",
            Self::NonFinite(_) => "non-finite",
            Self::WebGpuUnavailable(_) => "webgpu-unavailable",
            Self::Storage(_) => "storage",
            Self::NoEntropy(_) => "no-entropy",
            Self::Aborted => "aborted",
            Self::Refused(_) => "refused",
            Self::Busy => "busy",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<EngineError> for ClientError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Data(error) => error.into(),
            EngineError::NonFinite { .. } => Self::NonFinite(error.to_string()),
            EngineError::Stopped => Self::Aborted,
            EngineError::Chance(reason) => Self::NoEntropy(reason),
            error if is_of_gpu(&error) => Self::WebGpuUnavailable(error.to_string()),
            EngineError::Spec(_) => Self::BadManifest(error.to_string()),
            EngineError::Weights(_) => Self::BadModel(error.to_string()),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<DataError> for ClientError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Empty => Self::NoData,
            other => Self::BadData(other.to_string()),
        }
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::BadData(error.to_string())
    }
}

impl From<ManifestError> for ClientError {
    fn from(error: ManifestError) -> Self {
        Self::BadManifest(error.to_string())
    }
}

impl From<LedgerError> for ClientError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Exhausted { would_be, limit, .. } => Self::BudgetExhausted { would_be, limit },
            LedgerError::DailyLimit { limit } => Self::DailyLimit { limit },
            LedgerError::Budget(_) => Self::BadOptions(error.to_string()),
            other => Self::Storage(other.to_string()),
        }
    }
}

impl From<PrivacyError> for ClientError {
    fn from(error: PrivacyError) -> Self {
        match error {
            PrivacyError::Ledger(error) => error.into(),
            PrivacyError::Floor(error) => Self::BelowFloor(error.to_string()),
            PrivacyError::Encoding(unsaid_privacy::EncodingError::NonFinite { .. }) => {
                Self::NonFinite(error.to_string())
            }
            other => Self::BadManifest(other.to_string()),
        }
    }
}
