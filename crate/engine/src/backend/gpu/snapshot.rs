//! The newest state of a training that the CPU has, for when the device is lost.
//!
//! Some submissions, for small models every one, end with a copy of parameters, optimiser state and losses into a buffer that
//! the CPU can map. Such a submission is done when its copy is mapped: what is reported of it is known to the CPU, too.

use futures_channel::oneshot;

use super::{GpuDevice, device::Mapped};
use crate::EngineError;

/// A buffer that holds copies of others for the CPU. Clones are the same. It is the GPU's from [`record`](Self::record) on
/// until [`take`](Self::take).
#[derive(Clone)]
pub(super) struct Snapshot {
    staging: wgpu::Buffer,
    bytes: u64,
}

impl Snapshot {
    /// Room for so many numbers.
    pub fn new(gpu: &GpuDevice, numbers: usize) -> Result<Self, EngineError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            staging: gpu.buffer("snapshot", 4 * numbers as u64, usage)?,
            bytes: 4 * numbers as u64,
        })
    }

    /// Records copies of the first `len` numbers of each source, one behind the other.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, sources: &[(&wgpu::Buffer, usize)]) {
        let mut offset = 0;
        for &(source, len) in sources {
            let bytes = 4 * len as u64;
            encoder.copy_buffer_to_buffer(source, 0, &self.staging, offset, bytes);
            offset += bytes;
        }
    }

    /// Asks for what was recorded, once it is submitted.
    pub fn map(&self) -> oneshot::Receiver<Mapped> {
        let (done, waiting) = oneshot::channel();
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = done.send(result); // nobody waits where training was stopped
        });
        waiting
    }

    /// Hands the bytes over, once they are mapped, and gives the buffer back.
    pub fn take(&self, read: impl FnOnce(&[u8])) -> Result<(), EngineError> {
        let view = self.staging.get_mapped_range(..self.bytes);
        let taken = view.map(|view| read(&view));
        self.staging.unmap();
        taken.map_err(|_| EngineError::DeviceLost("what it had done could not be read".into()))
    }
}
