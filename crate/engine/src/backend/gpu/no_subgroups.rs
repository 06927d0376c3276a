//! Sums over a workgroup where the feature `extra-kernels` is off: always in workgroup memory.

use super::GpuDevice;
use crate::EngineError;

/// Whether the shader of this name sums by subgroups where a device has them: none does.
pub(super) const fn is_summing(_name: &str) -> bool {
    false
}

/// The shader as it is.
pub(super) fn with_subgroups(source: &str) -> String {
    source.to_owned()
}

impl GpuDevice {
    /// Whether the device sums by subgroups: it does not.
    ///
    /// # Errors
    /// None.
    pub async fn sums_by_subgroups(&self) -> Result<bool, EngineError> {
        Ok(false)
    }
}
