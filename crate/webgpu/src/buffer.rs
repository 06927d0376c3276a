//! Buffers.

use std::{
    num::NonZeroU64,
    ops::{BitOr, Deref, RangeFull, RangeTo},
    rc::Rc,
};

use js_sys::Uint8Array;
use wasm_bindgen_futures::{JsFuture, spawn_local};

use crate::{BindingResource, sys};

/// Bytes of a part of a buffer.
pub type BufferSize = NonZeroU64;

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferUsages(u32);

impl BufferUsages {
    /// The CPU reads it.
    pub const MAP_READ: Self = Self(0x1);
    /// It is copied from.
    pub const COPY_SRC: Self = Self(0x4);
    /// It is copied to.
    pub const COPY_DST: Self = Self(0x8);
    /// Kernels read numbers that are the same for all of them.
    pub const UNIFORM: Self = Self(0x40);
    /// Kernels read and write it.
    pub const STORAGE: Self = Self(0x80);

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for BufferUsages {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a buffer is made of.
#[derive(Debug, Clone)]
pub struct BufferDescriptor<'a> {
    /// Its name in the browser's messages.
    pub label: Option<&'a str>,
    /// Bytes.
    pub size: u64,
    /// What it is for.
    pub usage: BufferUsages,
    /// Not used here: buffers are written by the queue.
    pub mapped_at_creation: bool,
}

/// A buffer; clones are the same. The last one, be it in a [`BindGroup`](crate::BindGroup), gives the memory back.
#[derive(Debug, Clone)]
pub struct Buffer(Rc<Inner>);

#[derive(Debug)]
struct Inner(sys::GpuBuffer);

impl Drop for Inner {
    fn drop(&mut self) {
        // What was submitted is done all the same.
        self.0.destroy_buffer();
    }
}

/// What the CPU may do with a mapped buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapMode {
    /// Read it.
    Read,
}

/// A buffer could not be mapped, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferAsyncError;

/// The bytes of a mapped buffer.
#[derive(Debug)]
pub struct BufferView(Vec<u8>);

impl Deref for BufferView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Buffer {
    pub(crate) fn new(js: sys::GpuBuffer) -> Self {
        Self(Rc::new(Inner(js)))
    }

    pub(crate) fn js(&self) -> &sys::GpuBuffer {
        &self.0.0
    }

    /// All of it, as a binding.
    pub const fn as_entire_binding(&self) -> BindingResource<'_> {
        BindingResource::Buffer(BufferBinding {
            buffer: self,
            offset: 0,
            size: None,
        })
    }

    /// Asks for the whole buffer, once what was submitted is done.
    pub fn map_async(
        &self,
        mode: MapMode,
        _: RangeFull,
        done: impl FnOnce(Result<(), BufferAsyncError>) + 'static,
    ) {
        let mode = match mode {
            MapMode::Read => BufferUsages::MAP_READ.bits(),
        };
        let promise = self.js().map_async(mode);
        spawn_local(async move {
            let mapped = JsFuture::from(promise).await;
            done(mapped.map(|_| ()).map_err(|_| BufferAsyncError));
        });
    }

    /// The first bytes of a mapped buffer.
    ///
    /// # Errors
    /// [`BufferAsyncError`] where it is not mapped, or no longer.
    pub fn get_mapped_range(&self, range: RangeTo<u64>) -> Result<BufferView, BufferAsyncError> {
        let bytes = self.js().get_mapped_range(0.0, range.end as f64);
        let bytes = bytes.map_err(|_| BufferAsyncError)?;
        Ok(BufferView(Uint8Array::new(&bytes).to_vec()))
    }

    /// Gives it back to the GPU.
    pub fn unmap(&self) {
        self.js().unmap();
    }
}

/// A part of a buffer that a kernel sees.
#[derive(Debug, Clone)]
pub struct BufferBinding<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes; none for all that are left.
    pub size: Option<BufferSize>,
}
