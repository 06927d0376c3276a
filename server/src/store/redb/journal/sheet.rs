//! Bytes that are written to a file at once, past the operating system's cache where the file system lets them: a record is read
//! again only after a crash, and a copy of it in the cache costs the processor as much as making it.

use std::{
    fs::File,
    io::{ErrorKind, Seek, SeekFrom, Write},
};

/// What direct writes ask of the place and the length of their bytes: a page, which is enough for every common disk.
const PAGE: usize = 4_096;

/// A buffer that begins at the edge of a page, and is filled to another one before it is written.
#[derive(Default)]
pub(super) struct Sheet {
    bytes: Vec<u8>,
    start: usize,
}

impl Sheet {
    /// Empty, with place for so many bytes.
    pub fn begin(&mut self, most: usize) {
        self.bytes.clear();
        self.bytes.reserve(most + 2 * PAGE);
        self.start = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        self.bytes.resize(self.start, 0);
    }

    /// What is appended to.
    pub const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is on it.
    pub fn text(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Writes it to the start of `file`, with zeros behind it, and waits for the disk.
    pub fn write(&mut self, file: &mut File) -> std::io::Result<()> {
        let length = self.bytes.len() - self.start;
        self.bytes.resize(self.start + length.next_multiple_of(PAGE), 0);
        let bytes = &self.bytes[self.start..];
        match write_at_start(file, bytes) {
            // The disk asks for more than a page, or this is no longer at the edge of one.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                set_direct(file, false)?;
                write_at_start(file, bytes)?;
            }
            written => written?,
        }
        file.sync_data()
    }
}

fn write_at_start(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes)
}

/// Whether writes go past the cache.
///
/// # Errors
/// Where the file system, or the operating system, knows no such writes; then nothing has changed.
pub(super) fn set_direct(file: &File, direct: bool) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

        let mut flags = fcntl_getfl(file)?;
        flags.set(OFlags::DIRECT, direct);
        fcntl_setfl(file, flags)?;
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, direct);
        Err(std::io::Error::from(ErrorKind::Unsupported))
    }
}
