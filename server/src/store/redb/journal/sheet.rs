//! Bytes that are written to a file at once, past the operating system's cache where the file system lets them: they are read again only
//! after a crash, and a copy of them in the cache costs the processor as much as making them.

use std::{
    fs::File,
    io::{ErrorKind, Result},
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
        if self.bytes.capacity() < most + 2 * PAGE {
            self.bytes = Vec::with_capacity(most + 2 * PAGE);
        }
        self.start = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        self.bytes.resize(self.start, 0);
    }

    /// Forgets what is on it.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// What is appended to.
    pub const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is on it. Once it is written there are zeros behind.
    pub fn text(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// As [`Self::text`].
    pub fn text_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Writes it to the start of `file`, with zeros behind it to the edge of a page, and waits for the disk.
    pub fn write(&mut self, file: &mut File) -> Result<()> {
        let length = self.bytes.len() - self.start;
        self.bytes.resize(self.start + length.next_multiple_of(PAGE), 0);
        match write_at_start(file, self.text()) {
            // A disk that asks for more than a page, or a file system that finds out only now.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                if set_direct(file, false).is_err() {
                    return Err(error);
                }
                write_at_start(file, self.text())?;
            }
            written => written?,
        }
        file.sync_data()
    }
}

#[cfg(unix)]
fn write_at_start(file: &mut File, bytes: &[u8]) -> Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)
}

#[cfg(not(unix))]
fn write_at_start(file: &mut File, bytes: &[u8]) -> Result<()> {
    use std::io::{Seek, SeekFrom, Write};

    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes)
}

/// Whether writes go past the cache.
///
/// # Errors
/// Where the file system, or the operating system, knows no such writes; then nothing has changed.
pub(super) fn set_direct(file: &File, direct: bool) -> Result<()> {
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
        Err(ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    /// What is in a file after a sheet with `text` was written over something longer.
    fn written(sheet: &mut Sheet, text: &[u8], direct: bool) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 4 * PAGE]).unwrap();
        if direct && let Err(error) = set_direct(&file, true) {
            println!("through the cache, since there is no other way here: {error}");
        }
        sheet.end().extend_from_slice(text);
        assert_eq!(sheet.text(), text);
        sheet.write(&mut file).unwrap();
        let _ = set_direct(&file, false); // where it can be direct, it was until here
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_sheet_is_written_with_zeros_to_the_end_of_its_page() {
        let mut sheet = Sheet::default();
        for direct in [false, true] {
            for length in [0, 1, PAGE - 1, PAGE, PAGE + 1] {
                let text: Vec<u8> = (1..=255).cycle().take(length).collect();
                sheet.begin(length);
                assert_eq!(sheet.text().as_ptr().align_offset(PAGE), 0);
                let bytes = written(&mut sheet, &text, direct);
                assert_eq!(sheet.text().as_ptr().align_offset(PAGE), 0, "it did not move");
                let end = length.next_multiple_of(PAGE);
                assert_eq!(bytes[..length], text);
                assert!(bytes[length..end].iter().all(|&byte| byte == 0));
                assert_eq!(bytes[end..], vec![7; 4 * PAGE - end], "the rest is left");
            }
        }
    }

    /// Whatever the disk says of a buffer that is not at the edge of a page.
    #[test]
    fn a_sheet_that_is_nowhere_near_an_edge_is_written_all_the_same() {
        let mut sheet = Sheet::default();
        sheet.begin(100);
        sheet.bytes.push(0);
        sheet.start += 1;
        let bytes = written(&mut sheet, &[3; 100], true);
        assert_eq!(
            (&bytes[..100], &bytes[100..PAGE]),
            (&[3; 100][..], &[0; PAGE - 100][..])
        );
    }
}
