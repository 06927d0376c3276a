//! The newest state of a training that the CPU has, for when the device is lost.
//!
//! Some submissions, for small models every one, end with a copy of parameters, optimiser state and losses into a buffer that
//! the CPU can map. The mapping is never waited for: it is done when the submission is, and where it is not, the older snapshot
//! stays.

use std::sync::{Arc, Mutex};

use super::{GpuDevice, device::lock};
use crate::EngineError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapping {
    /// The buffer is the GPU's.
    Idle,
    /// It has been asked for.
    Asked,
    /// It can be read.
    Mapped,
}

/// A buffer that holds copies of others for the CPU. Clones are the same.
#[derive(Clone)]
pub(super) struct Snapshot {
    staging: wgpu::Buffer,
    bytes: u64,
    mapping: Arc<Mutex<Mapping>>,
}

impl Snapshot {
    /// Room for so many numbers.
    pub fn new(gpu: &GpuDevice, numbers: usize) -> Result<Self, EngineError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            staging: gpu.buffer("snapshot", 4 * numbers as u64, usage)?,
            bytes: 4 * numbers as u64,
            mapping: Arc::new(Mutex::new(Mapping::Idle)),
        })
    }

    /// Records copies of the first `len` numbers of each source, one behind the other; false, and nothing recorded, while the
    /// last copies are still being mapped. Those that were mapped too late for anybody to take them are given up.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, sources: &[(&wgpu::Buffer, usize)]) -> bool {
        let mut mapping = lock(&self.mapping);
        match *mapping {
            Mapping::Idle => {}
            Mapping::Asked => return false,
            Mapping::Mapped => {
                self.staging.unmap();
                *mapping = Mapping::Idle;
            }
        }
        let mut offset = 0;
        for &(source, len) in sources {
            let bytes = 4 * len as u64;
            encoder.copy_buffer_to_buffer(source, 0, &self.staging, offset, bytes);
            offset += bytes;
        }
        true
    }

    /// Asks for what was recorded, once it is submitted.
    pub fn ask(&self) {
        *lock(&self.mapping) = Mapping::Asked;
        let mapping = Arc::clone(&self.mapping);
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            *lock(&mapping) = match result {
                Ok(()) => Mapping::Mapped,
                Err(_) => Mapping::Idle, // the device says why
            };
        });
    }

    /// Hands the bytes over, if they are there, and gives the buffer back.
    pub fn take(&self, read: impl FnOnce(&[u8])) -> bool {
        if *lock(&self.mapping) != Mapping::Mapped {
            return false;
        }
        let taken = self
            .staging
            .get_mapped_range(..self.bytes)
            .map(|view| read(&view));
        self.staging.unmap();
        *lock(&self.mapping) = Mapping::Idle;
        taken.is_ok()
    }
}
