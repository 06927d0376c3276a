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

#[cfg(test)]
mod tests {
    use std::io::Read;

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
